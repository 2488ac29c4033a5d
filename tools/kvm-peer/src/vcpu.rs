//! Running the vCPUs: each on a thread of its own, which stays on a CPU of its own.

use crate::devices::Devices;
use crate::linux;
use anyhow::Context;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

// Linux, include/uapi/asm-generic/errno-base.h.
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
/// The first CPU for vCPUs: CPU 0 has Linux's own work.
const FIRST_CPU: usize = 1;

/// Runs all of them until one ends the guest; returns the byte by which it did. The others go on until the machine ends.
pub(crate) fn run_all(vcpus: Vec<VcpuFd>, devices: &Arc<Devices>) -> anyhow::Result<u8> {
    let (sender, receiver) = channel();
    for (id, vcpu) in vcpus.into_iter().enumerate() {
        let (devices, sender) = (Arc::clone(devices), sender.clone());
        std::thread::spawn(move || run(id, vcpu, &devices, &sender));
    }
    drop(sender);
    receiver.recv().context("no vCPU is left")?
}

fn run(id: usize, vcpu: VcpuFd, devices: &Devices, ended: &Sender<anyhow::Result<u8>>) {
    let result = linux::stay_on(FIRST_CPU + id).and_then(|()| run_guest(vcpu, devices));
    // Nobody listens any more where another has ended the guest first.
    let _ = ended.send(result.with_context(|| format!("vCPU {id}")));
}

fn run_guest(mut vcpu: VcpuFd, devices: &Devices) -> anyhow::Result<u8> {
    loop {
        let exit = match vcpu.run() {
            // So it ends when a vCPU that waited for its start gets it, too.
            Err(error) if matches!(error.errno(), EAGAIN | EINTR) => continue,
            exit => exit.context("KVM_RUN")?,
        };
        match exit {
            VcpuExit::IoOut(port, bytes) => {
                if let Some(byte) = devices.write(port, bytes) {
                    return Ok(byte);
                }
            }
            VcpuExit::IoIn(port, bytes) => devices.read(port, bytes),
            VcpuExit::MmioRead(_, bytes) => bytes.fill(0xFF),
            VcpuExit::MmioWrite(..) => {}
            other => anyhow::bail!("the guest cannot go on: {other:?}"),
        }
    }
}
