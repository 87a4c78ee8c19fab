//! Generates the parser from `src/gov.lalrpop`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = generate() {
        println!("cargo::error=the grammar is not usable: {error}");
    }
}

fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::var("OUT_DIR")?;
    lalrpop::Configuration::new()
        .set_out_dir(out)
        .emit_rerun_directives(true)
        .process_file("src/gov.lalrpop")
}
