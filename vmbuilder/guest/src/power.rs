//! Ending the machine.

use std::path::Path;

use rustix::system::{RebootCommand, reboot};

/// Ends the machine now. Nothing is synced: nothing in it is worth keeping.
///
/// With ACPI the power goes off. Without, there is no way to turn it off, and a restart ends the machine because its host
/// lets none restart.
pub fn off() -> ! {
    let has_acpi = Path::new("/sys/firmware/acpi").exists();
    let commands = if has_acpi {
        [RebootCommand::PowerOff, RebootCommand::Restart]
    } else {
        [RebootCommand::Restart, RebootCommand::PowerOff]
    };
    for command in commands {
        // on success it does not return
        let _ = reboot(command);
    }
    // process 1 that ends is a panic, and the command line says what becomes of those
    std::process::abort()
}
