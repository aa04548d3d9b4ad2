//! The `leasehold` binary: hands over to the library and turns its answer into an exit code.
//!
//! Nothing else belongs here, so that tests reach everything through the library.

/// A broker makes and drops some dozens of small things per message; the system's allocator spends
/// twice the time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    leasehold::cli::main()
}
