//! Leases, offers and load of builders on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use igloo_build::lease::{Lease, LeaseError, LeaseOwner, LeaseStatus};
use igloo_build::offer::{BuilderLoad, BuilderOffer};

use crate::build::{InputSource, at_most, form, millis, read_sources};
use crate::error::{InField, WireError};
use crate::event::text;
use crate::igloo::build::v1;
use v1::lease_failure::Failure as Kind;

/// Most leases in one answer.
pub const LEASES_MAX: usize = 1 << 10;
/// Most systems, features and stores a builder may name.
const NAMES_MAX: usize = 256;

/// Writes a lease.
pub fn lease_message(lease: &Lease) -> v1::Lease {
    v1::Lease {
        owner: lease.owner().as_str().to_owned(),
        subject: lease.subject().clone(),
        id: lease.id(),
    }
}

/// Reads a lease.
///
/// # Errors
/// None, or one whose names are wrong.
pub fn read_lease(lease: Option<v1::Lease>) -> Result<Lease, WireError> {
    let lease = lease.field("lease")?;
    let owner = read_owner(&lease.owner)?;
    Lease::new(owner, lease.subject, lease.id).map_err(|_| form("subject", "1 to 512 bytes"))
}

/// Reads the name of an owner.
///
/// # Errors
/// A name that is none.
pub fn read_owner(owner: &str) -> Result<LeaseOwner, WireError> {
    LeaseOwner::try_from(owner).map_err(|_| form("owner", "1 to 64 letters, digits, `-`, `.` and `_`"))
}

/// Writes a failure of a lease as the end of a build.
pub fn lease_failure_message(error: &LeaseError) -> v1::Failure {
    v1::Failure {
        failure: Some(v1::failure::Failure::Lease(lease_failure(error))),
        code: error.code().number(),
    }
}

pub(crate) fn lease_failure(error: &LeaseError) -> v1::LeaseFailure {
    let (lease, kind) = match error {
        LeaseError::Unknown { lease } => (lease, Kind::Unknown(v1::Unknown {})),
        LeaseError::Outdated { lease, latest } => (lease, Kind::Outdated(*latest)),
        LeaseError::TakenOver { lease } => (lease, Kind::TakenOver(v1::TakenOver {})),
    };
    v1::LeaseFailure {
        lease: Some(lease_message(lease)),
        failure: Some(kind),
    }
}

pub(crate) fn read_lease_failure(failure: v1::LeaseFailure) -> Result<LeaseError, WireError> {
    let lease = read_lease(failure.lease)?;
    Ok(match failure.failure.field("failure")? {
        Kind::Unknown(_) => LeaseError::Unknown { lease },
        Kind::Outdated(latest) => LeaseError::Outdated { lease, latest },
        Kind::TakenOver(_) => LeaseError::TakenOver { lease },
    })
}

/// Reads an order to attend a build: its lease, the log bytes the caller has, and where the inputs are.
///
/// # Errors
/// A lease that is none, too many sources, a source that is none.
pub fn read_attach(request: v1::AttachRequest) -> Result<(Lease, u64, Vec<InputSource>), WireError> {
    let sources = read_sources(&request.input_stores)?;
    Ok((read_lease(request.lease)?, request.log_from, sources))
}

/// Writes the leases of an owner, the first [`LEASES_MAX`] of them.
pub fn leases_message(leases: &[LeaseStatus]) -> v1::ListLeasesResponse {
    let status = |status: &LeaseStatus| v1::LeaseStatus {
        lease: Some(lease_message(&status.lease)),
        log_bytes: status.log_bytes,
        is_ended: status.is_ended,
    };
    v1::ListLeasesResponse {
        leases: leases.iter().take(LEASES_MAX).map(status).collect(),
    }
}

/// Reads the leases of an owner.
///
/// # Errors
/// Too many, one that is none, or one of another owner.
pub fn read_leases(
    response: v1::ListLeasesResponse,
    owner: &LeaseOwner,
) -> Result<Vec<LeaseStatus>, WireError> {
    at_most(response.leases.len(), LEASES_MAX, "leases")?;
    let read = |status: v1::LeaseStatus| {
        let lease = read_lease(status.lease)?;
        if lease.owner() != owner {
            return Err(form("owner", "the one that was asked for"));
        }
        Ok(LeaseStatus {
            lease,
            log_bytes: status.log_bytes,
            is_ended: status.is_ended,
        })
    };
    response.leases.into_iter().map(read).collect()
}

/// Writes what a builder offers.
pub fn offer_message(offer: BuilderOffer) -> v1::Capabilities {
    v1::Capabilities {
        systems: offer.systems.into_iter().collect(),
        stores: offer.stores.into_iter().collect(),
        builds_max: offer.slots,
        features: offer.features.into_iter().collect(),
        mandatory_features: offer.mandatory_features.into_iter().collect(),
        memory_mib: offer.memory_mib,
        network: offer.network,
        machine: offer.machine,
        unattended_ms: offer.unattended.map(millis),
    }
}

/// Reads what a builder offers: of each list the first 256, cleaned. A builder with more mandatory features is refused, since leaving some out would offer more than it does.
///
/// # Errors
/// Too many mandatory features.
pub fn read_offer(message: &v1::Capabilities) -> Result<BuilderOffer, WireError> {
    fn names<C: FromIterator<String>>(names: &[String]) -> C {
        names.iter().take(NAMES_MAX).map(|name| text(name)).collect()
    }
    at_most(message.mandatory_features.len(), NAMES_MAX, "mandatory_features")?;
    Ok(BuilderOffer {
        systems: names::<BTreeSet<_>>(&message.systems),
        features: names(&message.features),
        mandatory_features: names(&message.mandatory_features),
        slots: message.builds_max,
        memory_mib: message.memory_mib,
        network: message.network,
        stores: names(&message.stores),
        machine: text(&message.machine),
        unattended: message.unattended_ms.map(Duration::from_millis),
    })
}

/// Writes how busy a builder is.
pub fn load_message(load: BuilderLoad) -> v1::Load {
    v1::Load {
        permille: load.permille,
        running: load.running,
    }
}

/// Reads how busy a builder is; a load over 1000 is 1000.
pub fn read_load(load: v1::Load) -> BuilderLoad {
    BuilderLoad {
        permille: load.permille.min(1000),
        running: load.running,
    }
}

#[cfg(test)]
pub(crate) mod tests;
