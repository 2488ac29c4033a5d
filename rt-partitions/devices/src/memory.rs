//! Device memory that the partition owns: the emulator's PCI device for practice (QEMU, docs/specs/edu).

use partita_rt::{Error, Machine};

use crate::checked::{Claims, between_marks};

/// Major and minor version in the upper half, and what tells the device from others.
const IDENTIFICATION: u64 = 0;
const EDU: u32 = 0x0100_00ED;
/// Gives back what was written to it, inverted.
const LIVENESS: u64 = 4;
/// Source of a DMA transfer, which nobody starts: a register of 64 bits.
const DMA_SOURCE: u64 = 0x80;
/// The device's last register of 4 bytes; nothing answers there.
const LAST: u64 = 0xF_FFFC;
/// Accesses that must not leave the guest.
const TIMES: u64 = 1000;

/// The device, seen by the guest at this address.
#[derive(Clone, Copy, Debug)]
struct Device(u64);

impl Device {
    fn read(self, offset: u64) -> u32 {
        // SAFETY: a register of the device that the partition owns; else this ends the partition, as it must.
        unsafe { ((self.0 + offset) as *const u32).read_volatile() }
    }

    fn write(self, offset: u64, value: u32) {
        // SAFETY: as above; no register that is written here has an effect on memory.
        unsafe { ((self.0 + offset) as *mut u32).write_volatile(value) };
    }

    fn read_wide(self, offset: u64) -> u64 {
        // SAFETY: as for `read`.
        unsafe { ((self.0 + offset) as *const u64).read_volatile() }
    }

    fn write_wide(self, offset: u64, value: u64) {
        // SAFETY: as for `write`.
        unsafe { ((self.0 + offset) as *mut u64).write_volatile(value) };
    }

    fn answers_to(self, value: u32) -> bool {
        self.write(LIVENESS, value);
        self.read(LIVENESS) == !value
    }
}

/// The device is there, reads and writes.
pub(crate) fn edu(_: &Machine, address: u64) -> Result<(), Error> {
    let mut claims = Claims::from(400);
    claims.equal("about to read the device's identification", address, address);
    let device = Device(address);
    let found = device.read(IDENTIFICATION);
    claims.equal("it is the one that the firmware is known to put there", found.into(), EDU.into());
    for value in [0, 0xFFFF_FFFF, 0x1234_5678] {
        device.write(LIVENESS, value);
        claims.equal("it gives back what is written, inverted", device.read(LIVENESS).into(), (!value).into());
    }
    device.write_wide(DMA_SOURCE, 0x0123_4567_89AB_CDEF);
    claims.equal("64 bits are written and read at once", device.read_wide(DMA_SOURCE), 0x0123_4567_89AB_CDEF);

    let (mut reads, mut writes) = (0, 0);
    let mut value = 0_u32;
    between_marks(TIMES, || {
        value = value.wrapping_add(0x0101_0101);
        reads += u64::from(device.read(IDENTIFICATION) == EDU);
        writes += u64::from(device.answers_to(value));
    });
    claims.equal("each read came to the device", reads, TIMES);
    claims.equal("so did each write", writes, TIMES);
    Ok(())
}

/// The device, and then its last page: owned as the first, unless the partition was given less.
pub(crate) fn edu_end(machine: &Machine, address: u64) -> Result<(), Error> {
    edu(machine, address)?;
    let mut claims = Claims::from(450);
    claims.equal("about to read its end", address + LAST, address + LAST);
    claims.equal("nothing answers there", Device(address).read(LAST).into(), u32::MAX.into());
    Ok(())
}
