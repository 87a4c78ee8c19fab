//! The command line as a program of this crate, so that tests of it get a path to run.

fn main() -> std::process::ExitCode {
    govc::main()
}
