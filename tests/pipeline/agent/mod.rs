//! `leasehold agent` against a real broker: what its builds do, print and leave behind, whoever is killed and
//! whatever goes wrong on the way. In [`whole`] builds are conducted by that broker; elsewhere by hand, so that
//! answers can be lost, and a lease be ended to the moment.

mod containers;
mod endings;
mod logs;
mod podman;
mod pulls;
mod registry;
pub mod stand_in;
mod steps;
pub mod whole;

/// The phone's secret.
const PIN: &str = "pin-4711-of-the-test";

/// A phone with a secret, and no ttl that a test waits for.
const LAB: &str = r#"
[[pool]]
name = "phone"
ttl = "10m"

[[resource]]
name = "pixel"
pool = "phone"
labels = { os = "android" }
properties = { serial = "emulator-5554" }
secrets = { pin = { env = "PIXEL_PIN" } }
"#;
