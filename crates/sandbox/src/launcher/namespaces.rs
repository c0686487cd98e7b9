//! The first of two processes: makes the namespaces, and starts the second as process 1 in them.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{DumpableBehavior, getgid, getuid, set_dumpable_behavior, setsid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{At, INNER, Trouble};
use crate::LAUNCHER_ARGUMENT;
use crate::config::Network;
use crate::policy::{Identity, Outline};

pub(super) fn enter(outline: &Outline, lifeline: &UnixStream) -> Result<(), Trouble> {
    // Fails for the leader of a process group only, which this is not when the server started it.
    setsid().at("the session")?;
    if let Some(identity) = outline.identity {
        become_user(identity)?;
    }
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    // A change of user has given the files of this process in /proc to root, among them the maps below.
    set_dumpable_behavior(DumpableBehavior::Dumpable).at("the user namespace")?;
    let mut flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if outline.network != Network::On {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).at("namespaces")?;
    // Without this the kernel takes no map of groups from an ordinary user (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").at("the map of groups")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).at("the map of users")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).at("the map of groups")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("the hiding of memory")?;

    hand_on(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN).at("the capabilities")?;
    let socket = lifeline.as_fd().try_clone_to_owned().at("the socket")?;
    // The link in /proc works for users who could not reach the executable by its path.
    let mut inner = Command::new("/proc/self/exe")
        .args([LAUNCHER_ARGUMENT, INNER])
        .env_clear()
        .stdin(Stdio::from(socket))
        .spawn()
        .at("the second stage")?;
    // It has told the server itself how it went; when it cannot, the end of the socket does.
    inner.wait().at("the second stage")?;
    Ok(())
}

/// Lets the next program that is started keep these of the capabilities that this process has in its new
/// namespaces; by itself it would lose all of them, because its user is not root.
fn hand_on(capabilities: CapabilitySet) -> rustix::io::Result<()> {
    let have = rustix::thread::capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: capabilities, ..have })?;
    for capability in capabilities.iter() {
        configure_capability_in_ambient_set(capability, true)?;
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
