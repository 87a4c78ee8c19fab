//! `govc`: governance that travels in the packet.

fn main() -> std::process::ExitCode {
    govc::main()
}
