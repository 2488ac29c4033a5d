//! A cpio archive in the "newc" format, in one canonical order.

use anyhow::Context;
use cpio::newc::{Builder, ModeFileType, trailer};
use std::collections::BTreeMap;
use std::io::Write;

enum Node {
    Directory,
    File(Vec<u8>),
    Device { major: u32, minor: u32 },
}

/// What goes into the archive, by path.
#[derive(Default)]
pub(super) struct Archive {
    // Sorted, so that a directory comes before what is in it.
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    pub(super) fn add_directory(&mut self, path: &str) {
        self.add(path, Node::Directory);
    }

    pub(super) fn add_device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, Node::Device { major, minor });
    }

    /// Adds an executable file; a second one at the same path replaces the first.
    pub(super) fn add_file(&mut self, path: &str, bytes: Vec<u8>) {
        self.add(path, Node::File(bytes));
    }

    pub(super) fn has_file(&self, path: &str) -> bool {
        matches!(self.nodes.get(path.trim_start_matches('/')), Some(Node::File(_)))
    }

    fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if let Some(parent) = path.get(..at) {
                self.nodes.entry(parent.to_owned()).or_insert(Node::Directory);
            }
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// The archive's bytes.
    pub(super) fn write(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (number, (path, node)) in (1u32..).zip(&self.nodes) {
            let builder = Builder::new(path).ino(number);
            let (builder, data): (Builder, &[u8]) = match node {
                Node::Directory => (builder.mode(0o755).set_mode_file_type(ModeFileType::Directory), &[]),
                Node::File(data) => (builder.mode(0o755).set_mode_file_type(ModeFileType::Regular), data),
                Node::Device { major, minor } => {
                    let device = builder.mode(0o600).set_mode_file_type(ModeFileType::Char);
                    (device.rdev_major(*major).rdev_minor(*minor), &[])
                }
            };
            let len = u32::try_from(data.len()).with_context(|| format!("{path} is larger than 4 GiB"))?;
            let mut writer = builder.write(&mut bytes, len);
            writer.write_all(data).with_context(|| format!("cannot add {path} to the initramfs"))?;
            writer.finish().with_context(|| format!("cannot add {path} to the initramfs"))?;
        }
        trailer(&mut bytes).context("cannot finish the initramfs")?;
        Ok(bytes)
    }
}
