//! The boot bundle of a system: its configuration and everything that is copied into its partitions.

use crate::image::LinkedImage;
use partita_abi::bundle::{BundleBuilder, SECTIONS_MAX};
use partita_core::encode::{CodecError, ENCODED_MAX, encode};
use partita_core::system::{Expectation, SystemConfig};

/// Why a bundle cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BundleBuildError {
    /// The configuration cannot be encoded.
    #[error("cannot encode the system's configuration: {0}")]
    Encode(CodecError),
    /// The images have more segments than a bundle takes.
    #[error("the partitions' images have {found} segments, a boot bundle takes {max}; link them into fewer segments")]
    TooManySegments {
        /// How many there are.
        found: usize,
        /// Most segments.
        max: usize,
    },
}

/// Builds the bundle of the system `config` with the images of its partitions, by partition number. The entries of
/// the images replace those of `config`.
///
/// # Errors
/// The system does not fit into a bundle.
pub fn build(config: &SystemConfig, images: &[LinkedImage]) -> Result<Vec<u8>, BundleBuildError> {
    let found = images.iter().map(|image| image.segments.len()).sum();
    let max = SECTIONS_MAX - 1;
    if found > max {
        return Err(BundleBuildError::TooManySegments { found, max });
    }
    let mut config = config.clone();
    let mut builder = BundleBuilder::new();
    for ((number, partition), image) in (0u32..).zip(&mut config.partitions).zip(images) {
        partition.entry = image.entry;
        if image.is_missing() {
            // It was left out because it may be; nothing is expected of what does not start.
            partition.expect = Expectation::Anything;
        }
        for segment in &image.segments {
            builder.segment(number, segment.gpa, segment.mem_len, segment.data.clone());
        }
    }
    let mut buffer = [0; ENCODED_MAX];
    Ok(builder.build(encode(&config, &mut buffer).map_err(BundleBuildError::Encode)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Segment;
    use crate::system_file::SystemFile;
    use partita_abi::bundle::Bundle;
    use partita_core::encode::decode;
    use partita_core::system::Entry;
    use std::path::Path;

    const SYSTEM: &str = "[system]\nname = 's'\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '2 MiB'\n\
                          image = { kind = 'elf', path = 'p.elf' }\nexpect = 'finish'\n";

    fn image(segments: usize) -> LinkedImage {
        let segment = Segment { gpa: 0x10_0000, mem_len: 8, data: vec![1, 2] };
        LinkedImage { segments: vec![segment; segments], entry: Entry::Pvh { entry: 0x10_0000, start_info: 7 } }
    }

    #[test]
    fn a_bundle_carries_configuration_and_segments() {
        let file = SystemFile::parse(SYSTEM, Path::new("s.toml")).unwrap();
        let bytes = build(&file.config, &[image(1)]).unwrap();
        let bundle = Bundle::parse(&bytes).unwrap();
        let config = decode(bundle.config()).unwrap();
        assert_eq!(config.partitions[0].entry, Entry::Pvh { entry: 0x10_0000, start_info: 7 });
        assert_eq!(config.name, file.config.name);
        let segment = bundle.segments(0).next().unwrap();
        assert_eq!((segment.gpa, segment.mem_len, segment.data), (0x10_0000, 8, &[1u8, 2][..]));
    }

    #[test]
    fn a_missing_image_is_missing_in_the_bundle() {
        let file = SystemFile::parse(SYSTEM, Path::new("s.toml")).unwrap();
        let bytes = build(&file.config, &[LinkedImage::missing()]).unwrap();
        let bundle = Bundle::parse(&bytes).unwrap();
        let config = decode(bundle.config()).unwrap();
        assert_eq!(config.partitions[0].entry, Entry::Missing);
        assert_eq!(config.partitions[0].expect, Expectation::Anything);
        assert_eq!(bundle.segments(0).count(), 0);
    }

    #[test]
    fn too_many_segments_are_refused() {
        let file = SystemFile::parse(SYSTEM, Path::new("s.toml")).unwrap();
        assert!(matches!(
            build(&file.config, &[image(SECTIONS_MAX)]),
            Err(BundleBuildError::TooManySegments { found: SECTIONS_MAX, .. })
        ));
    }
}
