//! The binary: everything is in the library, so that other crates' tests can build it as well.

fn main() -> std::process::ExitCode {
    svcmap::main()
}
