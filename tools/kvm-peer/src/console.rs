//! The guest's console: what it prints goes to this program's own.

use partita_abi::report::TRACE_REGION_AT;

/// Lines of a guest that prints byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Console {
    line: Vec<u8>,
    /// Where the guest says that its trace lies.
    pub(crate) trace_region: Option<u64>,
}

impl Console {
    /// Takes a byte; returns the line that it ends, as it is to be printed. Where the guest names the address of its trace,
    /// the line names `trace_at` instead: that is where it will be.
    pub(crate) fn put(&mut self, byte: u8, trace_at: u64) -> Option<String> {
        match byte {
            b'\r' => None,
            b'\n' => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                Some(self.translate(line, trace_at))
            }
            byte => {
                self.line.push(byte);
                None
            }
        }
    }

    fn translate(&mut self, line: String, trace_at: u64) -> String {
        let Some((before, after)) = line.split_once(TRACE_REGION_AT) else { return line };
        let after = after.trim_start();
        let Some(digits) = after.strip_prefix("0x") else { return line };
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let (digits, rest) = digits.split_at(end);
        let Ok(address) = u64::from_str_radix(digits, 16) else { return line };
        self.trace_region = Some(address);
        format!("{before}{TRACE_REGION_AT} {trace_at:#x}{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_named_where_it_will_be() {
        let mut console = Console::default();
        let text = format!("hello\r\npayload: {TRACE_REGION_AT} 0x400000, 64 slots\r\nbye");
        let lines: Vec<String> = text.bytes().filter_map(|byte| console.put(byte, 0x1F00_0000)).collect();
        assert_eq!(lines, ["hello".to_owned(), format!("payload: {TRACE_REGION_AT} 0x1f000000, 64 slots")]);
        assert_eq!(console.trace_region, Some(0x40_0000));
    }
}
