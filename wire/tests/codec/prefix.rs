//! Prefixes of other protocols, versions and kinds, and header lengths that no message has.

use tidegate_wire::{CONTROL_BYTES_MAX, DecodeError, HEADER_BYTES_MAX, Kind, Prefix};

#[test]
fn a_prefix_is_ours_and_within_the_limit_of_its_kind() {
    let prefix = |kind: Kind, len: usize| {
        let mut bytes = *b"TDGT\x01\0\0\0\0\0";
        bytes[5] = kind.number();
        bytes[6..].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        bytes
    };
    for (kind, max) in [
        (Kind::Request, HEADER_BYTES_MAX),
        (Kind::Reply, HEADER_BYTES_MAX),
        (Kind::Control, CONTROL_BYTES_MAX),
    ] {
        let read = Prefix::decode(&prefix(kind, max)).unwrap();
        assert_eq!(read.expect(kind), Ok(max));
        for wanted in Kind::ALL.into_iter().filter(|other| *other != kind) {
            let got = kind;
            assert_eq!(
                read.expect(wanted),
                Err(DecodeError::WrongKind { wanted, got })
            );
        }
        for above in [max + 1, u32::MAX as usize] {
            let refused = Prefix::decode(&prefix(kind, above));
            let len = u32::try_from(above).unwrap();
            assert_eq!(refused, Err(DecodeError::HeaderLen { kind, len, max }));
        }
    }
    assert_eq!(
        Prefix::decode(b"GET / HTTP"),
        Err(DecodeError::Magic { got: *b"GET " })
    );
    assert_eq!(
        Prefix::decode(b"TDGT\x02\x01\0\0\0\0"),
        Err(DecodeError::Version { got: 2 })
    );
    for got in [0, 4, 255] {
        let mut bytes = prefix(Kind::Request, 0);
        bytes[5] = got;
        assert_eq!(
            Prefix::decode(&bytes),
            Err(DecodeError::UnknownKind { got })
        );
    }
}
