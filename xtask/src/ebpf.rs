//! Building the eBPF object, reproducibly, and recording by what.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const TARGET: &str = "bpfel-unknown-none";
/// Kernels with tcx know instruction set v4.
const CPU: &str = "v4";
const OBJECT: &str = "runtime-ebpf/prebuilt/govc.bpf.o";
const RECORD: &str = "runtime-ebpf/prebuilt/build.toml";
const FRESH: &str = "target/govc.bpf.o";
/// Where Debian's `rustc-web` puts a compiler with a prebuilt `core` for eBPF.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Why there is no object.
#[derive(Debug, Error)]
pub enum EbpfError {
    /// A tool is missing.
    #[error("{0}")]
    Missing(String),
    /// The compiler failed; it has said why.
    #[error("the eBPF program does not compile")]
    Compile,
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    File {
        /// What was read or written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What the compiler made cannot be stripped.
    #[error("the object cannot be stripped: {0}")]
    Object(String),
    /// The committed object is not what the source gives.
    #[error("{OBJECT} is not what the source gives; run `cargo xtask ebpf` and commit it")]
    Differs,
    /// The committed record is unreadable.
    #[error("{RECORD}: {0}")]
    Record(String),
}

/// By what the object was built, from what.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    object_sha256: String,
    source_sha256: String,
    rustc: String,
    bpf_linker: String,
}

enum Toolchain {
    /// A rustc that brings `core` for eBPF.
    Prebuilt(PathBuf),
    /// A nightly that builds `core` itself.
    Nightly,
}

/// Builds the object and writes it with its record.
pub fn build() -> Result<(), EbpfError> {
    let (object, record) = compile()?;
    write(OBJECT, &object)?;
    let text = toml::to_string(&record).map_err(|e| EbpfError::Record(e.to_string()))?;
    write(RECORD, text.as_bytes())?;
    println!("{OBJECT}: {} bytes, sha256 {}", object.len(), record.object_sha256);
    Ok(())
}

/// Compares a fresh build with the committed object.
pub fn check() -> Result<(), EbpfError> {
    let text = fs::read_to_string(RECORD).map_err(at(RECORD))?;
    let committed: Record = toml::from_str(&text).map_err(|e| EbpfError::Record(e.to_string()))?;
    let (object, fresh) = compile()?;
    write(FRESH, &object)?;
    if committed == fresh {
        println!("{OBJECT} is what the source gives, byte for byte");
        return Ok(());
    }
    if committed.rustc == fresh.rustc && committed.bpf_linker == fresh.bpf_linker {
        return Err(EbpfError::Differs);
    }
    if committed.source_sha256 != fresh.source_sha256 {
        return Err(EbpfError::Differs);
    }
    println!(
        "other compilers than recorded ({}, {}) give {FRESH}, which cannot be compared: run `cargo xtask \
         ebpf` and the tests to see whether it holds",
        fresh.rustc, fresh.bpf_linker
    );
    Ok(())
}

fn compile() -> Result<(Vec<u8>, Record), EbpfError> {
    let linker = version("bpf-linker", "--version").ok_or_else(|| {
        EbpfError::Missing(
            "`bpf-linker` is missing\n  Debian: apt-get install llvm-22-dev && LLVM_PREFIX=/usr/lib/llvm-22 \
             cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22\n  \
             elsewhere: cargo install bpf-linker --version 0.13.0 --locked"
                .into(),
        )
    })?;
    let toolchain = find_toolchain()?;
    let rustc = match &toolchain {
        Toolchain::Prebuilt(rustc) => version(rustc, "--version"),
        Toolchain::Nightly => output(Command::new("rustc").args(["+nightly", "--version"])),
    }
    .unwrap_or_default();
    run_cargo(&toolchain)?;
    let built = Path::new("target/ebpf").join(TARGET).join("bpf/govc-bpf");
    let object = strip(&toolchain, &built)?;
    let record = Record {
        object_sha256: hex(&Sha256::digest(&object)),
        source_sha256: source_digest()?,
        rustc,
        bpf_linker: linker,
    };
    Ok((object, record))
}

fn find_toolchain() -> Result<Toolchain, EbpfError> {
    let sysroot = output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]));
    if let Some(sysroot) = sysroot
        && Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir()
    {
        return Ok(Toolchain::Prebuilt(DEBIAN_RUSTC.into()));
    }
    let sysroot = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]));
    match sysroot {
        Some(sysroot) if Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() => {
            Ok(Toolchain::Nightly)
        }
        Some(_) => Err(EbpfError::Missing(
            "nightly has no library source\n  rustup component add rust-src --toolchain nightly"
                .into(),
        )),
        None => Err(EbpfError::Missing(
            "no compiler for eBPF\n  Debian: apt-get install rustc-web libstd-rust-web-dev-bpf\n  \
             rustup: rustup toolchain install nightly --component rust-src"
                .into(),
        )),
    }
}

fn run_cargo(toolchain: &Toolchain) -> Result<(), EbpfError> {
    let here = std::env::current_dir().map_err(at("."))?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo")
    });
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        format!("-Ctarget-cpu={CPU}"),
        "-Clink-arg=--btf".to_owned(),
        // x86-64 and arm64 load unaligned words; without this every load is made of bytes.
        "-Ctarget-feature=+alu32,+allows-misaligned-mem-access".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("--remap-path-prefix={}=/govc", here.display()),
    ];
    for source in fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().flatten() {
        flags.push(format!("--remap-path-prefix={}=/crates", source.path().display()));
    }
    let mut cargo = Command::new("cargo");
    match toolchain {
        Toolchain::Prebuilt(rustc) => {
            // The compiler is a stable one; only these two crates may use what eBPF needs.
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "aya_ebpf,govc_bpf");
        }
        Toolchain::Nightly => {
            cargo.args(["+nightly", "-Zbuild-std=core"]);
        }
    }
    cargo
        .args(["build", "--locked", "--profile", "bpf", "--package", "govc-runtime-ebpf"])
        .args(["--bin", "govc-bpf", "--features", "bpf", "--target", TARGET])
        .args(["--target-dir", "target/ebpf"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", "bpf-linker");
    let status = cargo.status().map_err(at("cargo"))?;
    if status.success() { Ok(()) } else { Err(EbpfError::Compile) }
}

/// Drops DWARF with the compiler's own objcopy; BTF stays.
fn strip(toolchain: &Toolchain, object: &Path) -> Result<Vec<u8>, EbpfError> {
    let mut rustc = match toolchain {
        Toolchain::Prebuilt(rustc) => Command::new(rustc),
        Toolchain::Nightly => {
            let mut rustc = Command::new("rustc");
            rustc.arg("+nightly");
            rustc
        }
    };
    let sysroot = PathBuf::from(output(rustc.args(["--print", "sysroot"])).unwrap_or_default());
    let objcopy = fs::read_dir(sysroot.join("lib/rustlib"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/rust-objcopy"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            EbpfError::Missing("`rust-objcopy` is missing beside the compiler".into())
        })?;
    let stripped = object.with_extension("stripped");
    let status = Command::new(objcopy)
        .env("LD_LIBRARY_PATH", sysroot.join("lib"))
        .arg("--strip-debug")
        .args([object, &stripped])
        .status()
        .map_err(at("rust-objcopy"))?;
    if !status.success() {
        return Err(EbpfError::Object("rust-objcopy refuses it".into()));
    }
    fs::read(&stripped).map_err(at(stripped))
}

/// Digest of everything that decides what the object is.
fn source_digest() -> Result<String, EbpfError> {
    let mut files = vec![PathBuf::from("runtime-ebpf/Cargo.toml"), PathBuf::from("abi/Cargo.toml")];
    for dir in ["runtime-ebpf/src", "abi/src"] {
        for entry in fs::read_dir(dir).map_err(at(dir))? {
            files.push(entry.map_err(at(dir))?.path());
        }
    }
    files.retain(|path| path != Path::new("runtime-ebpf/src/lib.rs"));
    files.sort();
    let mut digest = Sha256::new();
    for path in files {
        let text = fs::read(&path).map_err(at(&path))?;
        digest.update(path.to_string_lossy().as_bytes());
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    Ok(hex(&digest.finalize()))
}

fn version(program: impl AsRef<std::ffi::OsStr>, argument: &str) -> Option<String> {
    output(Command::new(program).arg(argument))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn write(path: &str, bytes: &[u8]) -> Result<(), EbpfError> {
    fs::write(path, bytes).map_err(at(path))
}

fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> EbpfError {
    let path = path.into();
    move |source| EbpfError::File { path, source }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
