//! The ways that a pCPU took through the hypervisor.

use super::log::Executed;

/// How a path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathEnd {
    /// By the entry into a guest: its last instruction is VMRUN.
    Entry,
    /// By a halt: its last instruction is HLT.
    Halt,
    /// By the end of the log.
    EndOfLog,
}

/// The instructions from where a pCPU came back from a guest or a halt, to where it left again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The pCPU.
    pub pcpu: u16,
    /// How the one before it ended; `None` if it is the pCPU's first.
    pub after: Option<PathEnd>,
    /// How it ended.
    pub end: PathEnd,
    /// The addresses of the instructions.
    pub addresses: Vec<u64>,
}

/// The paths of each pCPU, in the order of their ends. `end_at` tells which addresses have instructions that end one.
pub fn paths(executed: &[Executed], mut end_at: impl FnMut(u64) -> Option<PathEnd>) -> Vec<Path> {
    let mut done = Vec::new();
    let mut open: Vec<Path> = Vec::new();
    let first = |pcpu| Path { pcpu, after: None, end: PathEnd::EndOfLog, addresses: Vec::new() };
    for &Executed { pcpu, address } in executed {
        while open.len() <= usize::from(pcpu) {
            open.push(first(open.len() as u16));
        }
        let Some(path) = open.get_mut(usize::from(pcpu)) else { continue };
        path.addresses.push(address);
        if let Some(end) = end_at(address) {
            path.end = end;
            let next = Path { after: Some(end), ..first(pcpu) };
            done.push(std::mem::replace(path, next));
        }
    }
    done.extend(open.into_iter().filter(|path| !path.addresses.is_empty()));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_pcpus_do_not_mix() {
        let executed = [(0, 1), (1, 1), (1, 100), (0, 2), (1, 5), (0, 200), (1, 100), (0, 3)];
        let executed = executed.map(|(pcpu, address)| Executed { pcpu, address });
        let end_at = |address| match address {
            100 => Some(PathEnd::Entry),
            200 => Some(PathEnd::Halt),
            _ => None,
        };
        let of = |pcpu, after, end, addresses: &[u64]| Path { pcpu, after, end, addresses: addresses.to_vec() };
        assert_eq!(
            paths(&executed, end_at),
            [
                of(1, None, PathEnd::Entry, &[1, 100]),
                of(0, None, PathEnd::Halt, &[1, 2, 200]),
                of(1, Some(PathEnd::Entry), PathEnd::Entry, &[5, 100]),
                of(0, Some(PathEnd::Halt), PathEnd::EndOfLog, &[3]),
            ]
        );
        assert_eq!(paths(&[], end_at), []);
    }
}
