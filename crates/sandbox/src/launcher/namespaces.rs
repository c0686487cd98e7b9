//! The namespaces of a command, and who it is.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{DumpableBehavior, getgid, getuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::kernel::{self, Side};
use super::{At, Trouble, loopback};
use crate::config::Network;
use crate::policy::{Identity, Policy};

/// Becomes the user of the policy, makes the namespaces, and comes back twice: as the process outside, and
/// as process 1 inside, which may do everything in them.
pub(super) fn enter(policy: &Policy) -> Result<Side, Trouble> {
    if let Some(identity) = policy.identity {
        become_user(identity)?;
    }
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    // A change of user has given the files of this process in /proc to root, among them the maps below.
    set_dumpable_behavior(DumpableBehavior::Dumpable).at("the user namespace")?;
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).at("namespaces")?;
    // Without this the kernel takes no map of groups from an ordinary user (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").at("the map of groups")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).at("the map of users")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).at("the map of groups")?;
    kernel::split().at("the process inside")
}

/// Gives this thread a network of its own, unless it is to have that of the host. A namespace belongs to a
/// thread and what it starts; this one takes the kernel the longest, so it is not made with the others.
pub(super) fn separate_network(network: Network) -> Result<(), Trouble> {
    if network == Network::On {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNET).at("the network namespace")?;
    if network == Network::Loopback {
        // It is there and down.
        loopback::bring_up().at("the loopback interface")?;
    }
    Ok(())
}

/// Gives up all capabilities of this thread, and with them those of what it starts.
pub(super) fn drop_capabilities() -> Result<(), Trouble> {
    let none = CapabilitySet::empty();
    clear_ambient_capability_set().at("the capabilities")?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .at("the capabilities")
}

/// Becomes this user for good. Only for a thread of root.
pub(super) fn become_user(identity: Identity) -> Result<(), Trouble> {
    let gid = rustix::fs::Gid::from_raw(identity.gid);
    let uid = rustix::fs::Uid::from_raw(identity.uid);
    set_thread_groups(&[]).at("the groups")?;
    set_thread_res_gid(gid, gid, gid).at("the group")?;
    set_thread_res_uid(uid, uid, uid).at("the user")?;
    Ok(())
}
