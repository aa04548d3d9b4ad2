//! The `leasehold` binary: hands over to the library and turns its answer into an exit code.
//!
//! Nothing else belongs here, so that tests reach everything through the library.

fn main() -> std::process::ExitCode {
    leasehold::cli::main()
}
