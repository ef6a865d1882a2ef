//! The `svcmap` command, built for the tests of this package.

fn main() -> std::process::ExitCode {
    svcmap::main()
}
