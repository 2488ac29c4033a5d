//! What the host tool asks for.

use anyhow::Context;

/// The words of the command line, `key=number` each; numbers are decimal, or hexadecimal with `0x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Bytes of the guest's memory.
    pub(crate) memory: u64,
    /// How many vCPUs it has.
    pub(crate) vcpus: u64,
    /// Where it is entered, in 32-bit protected mode.
    pub(crate) entry: u64,
    /// Guest-physical address of its PVH start info.
    pub(crate) start_info: u64,
    /// Where its trace is left when it has ended: an address in the machine's RAM that Linux does not use.
    pub(crate) trace_at: u64,
    /// Most bytes that fit there.
    pub(crate) trace_len: u64,
}

impl Settings {
    /// Reads the words; what is none of them is ignored: Linux passes on what it does not know itself.
    pub(crate) fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut settings = Self::default();
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let place = match key {
                "memory" => &mut settings.memory,
                "vcpus" => &mut settings.vcpus,
                "entry" => &mut settings.entry,
                "start_info" => &mut settings.start_info,
                "trace_at" => &mut settings.trace_at,
                "trace_len" => &mut settings.trace_len,
                _ => continue,
            };
            *place =
                number(value).with_context(|| format!("{word}: no number; write a decimal one, or one with 0x"))?;
        }
        anyhow::ensure!(
            settings.memory > 0 && settings.vcpus > 0 && settings.entry > 0,
            "memory=, vcpus= and entry= have to be given behind -- on the kernel's command line"
        );
        Ok(settings)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> anyhow::Result<Settings> {
        Settings::read(words.iter().map(|&word| word.to_owned()))
    }

    #[test]
    fn words_are_read() {
        let settings =
            read(&["memory=0x4000", "vcpus=2", "entry=0x200010", "quiet", "x=y", "trace_at=7", "trace_len=8"]).unwrap();
        let expected =
            Settings { memory: 0x4000, vcpus: 2, entry: 0x20_0010, start_info: 0, trace_at: 7, trace_len: 8 };
        assert_eq!(settings, expected);
        assert!(read(&["memory=much"]).unwrap_err().to_string().contains("memory=much"));
        assert!(read(&["memory=1", "vcpus=1"]).is_err());
    }
}
