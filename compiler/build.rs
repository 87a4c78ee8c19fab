//! Gathers the pages of the diagnostics, so that the program carries its own manual.
//!
//! `diagnostics/` is a link to the pages in `docs/`; a package of this crate holds the pages
//! themselves.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("diagnostics");
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut pages = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("GOV") && path.extension().is_some_and(|end| end == "md") {
            println!("cargo::rerun-if-changed={}", path.display());
            pages.push((name, path));
        }
    }
    pages.sort();
    let mut text = String::from("&[\n");
    for (name, path) in pages {
        writeln!(text, "    ({name:?}, include_str!({:?})),", path.display().to_string())?;
    }
    text.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), text)?;
    Ok(())
}
