//! The crate `wasmsign2` verifies what is signed here, and the reverse.

use std::collections::HashSet;
use std::io::Cursor;

use tidegate_registry::signature::{
    Coverage, PublicKey, SecretKey, Signer, sign, sign_detached, verify,
};
use wasmsign2::{Module, PublicKeySet, Section, SectionLike};

use crate::fixture::{
    COMPONENT, CORE, code, custom, delimiter, key, module, samples, section, signed, weights,
};

/// The same key in the other crate.
fn theirs(seed: u8) -> (wasmsign2::SecretKey, wasmsign2::PublicKey) {
    let secret = wasmsign2::SecretKey::from_pem(&key(seed).to_pem()).unwrap();
    let public = [&[1][..], secret.sk.public_key().as_ref()].concat();
    (secret, wasmsign2::PublicKey::from_bytes(&public).unwrap())
}

fn read(file: &[u8]) -> Module {
    Module::deserialize(&mut Cursor::new(file)).unwrap()
}

fn written(module: &Module) -> Vec<u8> {
    let mut bytes = Vec::new();
    module.serialize(&mut bytes).unwrap();
    bytes
}

/// Asserts that these keys signed the whole file, by our reading.
#[track_caller]
fn we_accept(file: &[u8], detached: Option<&[u8]>, seeds: &[u8]) {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed).public()).collect();
    let signers = verify(file, detached, &keys).unwrap().require(seeds.len());
    assert_eq!(
        signers.map(HashSet::from_iter),
        Ok(keys.into_iter().collect::<HashSet<_>>())
    );
}

/// Files of every kind: a component in parts, one without, and core modules.
fn files() -> Vec<Vec<u8>> {
    vec![
        module(),
        [COMPONENT, &code(), &weights()].concat(),
        [COMPONENT, &code(), &delimiter(1), &weights()].concat(),
        [CORE, &section(1, b"\0"), &custom("name", b"x")].concat(),
        CORE.to_vec(),
    ]
}

#[test]
fn keys_and_their_names_are_the_same() {
    let (secret, public) = theirs(5);
    let ours = SecretKey::read(secret.to_pem().as_bytes()).unwrap();
    assert_eq!(ours.public(), key(5).public());
    assert_eq!(
        SecretKey::read(&secret.to_bytes()).unwrap().public(),
        ours.public()
    );
    assert_eq!(
        SecretKey::read(&secret.to_der()).unwrap().public(),
        ours.public()
    );
    for form in [
        public.to_bytes(),
        public.to_der(),
        public.to_pem().into_bytes(),
    ] {
        assert_eq!(PublicKey::read(&form), Ok(ours.public()));
    }
    let named = public.attach_default_key_id();
    assert_eq!(named.key_id(), Some(&ours.public().id().0.to_vec()));
}

#[test]
fn we_accept_what_they_sign_as_one() {
    for file in files() {
        for id in [
            None,
            Some(b"me".to_vec()),
            theirs(1).1.attach_default_key_id().key_id,
        ] {
            let signed = theirs(1).0.sign(read(&file), id.as_ref()).unwrap();
            we_accept(&written(&signed), None, &[1]);
        }
    }
}

#[test]
fn we_accept_what_they_sign_in_parts_with_several_keys() {
    // A file without sections gets another delimiter from them each time, which undoes what was signed.
    for file in files().into_iter().filter(|file| file.len() > CORE.len()) {
        for with_delimiters in [false, true] {
            let sign = |module, seed| {
                let (secret, public) = theirs(seed);
                let id = public.attach_default_key_id().key_id;
                secret
                    .sign_multi(module, id.as_ref(), false, with_delimiters)
                    .unwrap()
                    .0
            };
            let split =
                read(&file).split(|section| section.id() == wasmsign2::SectionId::CustomSection);
            let signed = sign(sign(sign(split.unwrap(), 1), 2), 3);
            we_accept(&written(&signed), None, &[1, 2, 3]);
        }
    }
}

#[test]
fn we_accept_what_they_sign_beside_the_file() {
    for file in files() {
        let (module, detached) = theirs(1)
            .0
            .sign_multi(read(&file), None, true, false)
            .unwrap();
        assert_eq!(written(&module), file);
        we_accept(&file, Some(&detached), &[1]);
        let more = sign_detached(&file, Some(&detached), &key(2)).unwrap();
        we_accept(&file, Some(&more), &[2, 1]);
    }
}

#[test]
fn they_accept_what_we_sign() {
    for file in files() {
        let signed = sign(&sign(&file, &key(1)).unwrap().file, &key(2))
            .unwrap()
            .file;
        let mut set = PublicKeySet::empty();
        for seed in [1, 2] {
            let public = theirs(seed).1;
            public.verify(&mut Cursor::new(&signed), None).unwrap();
            public
                .verify_multi(&mut Cursor::new(&signed), None, |_| true)
                .unwrap();
            set.insert(public.attach_default_key_id()).unwrap();
        }
        assert_eq!(
            set.verify(&mut Cursor::new(&signed), None).unwrap().len(),
            2
        );
        let all = |_: &Section| true;
        let matrix = set
            .verify_matrix(&mut Cursor::new(&signed), None, &[all])
            .unwrap();
        assert_eq!(matrix[0].len(), 2);
        let stranger = theirs(3).1;
        assert!(stranger.verify(&mut Cursor::new(&signed), None).is_err());
    }
}

#[test]
fn they_accept_each_part_of_what_we_sign() {
    let signed = signed(&[1]);
    let public = theirs(1).1;
    for weights in [&weights()[..], &custom("tidegate:graph:model", b"other")] {
        let all = read(&signed);
        let mut header = Vec::new();
        all.sections[0].serialize(&mut header).unwrap();
        let tail = [weights, &delimiter(2), &samples(), &delimiter(3)].concat();
        let file = [COMPONENT, &header, &code(), &delimiter(1), &tail].concat();
        // The code alone is good whatever follows; all of it only with the weights that were signed.
        let code_alone = public.verify_multi(&mut Cursor::new(&file), None, |section| {
            let name = section.display(false);
            !name.contains("graph") && !name.contains("samples")
        });
        assert!(code_alone.is_ok());
        let everything = public.verify_multi(&mut Cursor::new(&file), None, |_| true);
        assert_eq!(everything.is_ok(), file == signed);
    }
}

#[test]
fn they_accept_what_we_sign_beside_the_file() {
    for file in files() {
        let detached = sign_detached(&file, None, &key(1)).unwrap();
        let detached = sign_detached(&file, Some(&detached), &key(2)).unwrap();
        for seed in [1, 2] {
            let public = theirs(seed).1;
            public
                .verify(&mut Cursor::new(&file), Some(&detached))
                .unwrap();
        }
        let attached = read(&file).attach_signature(&detached).unwrap();
        we_accept(&written(&attached), None, &[1, 2]);
    }
}

#[test]
fn they_and_we_add_to_each_others_signatures() {
    let first = written(
        &theirs(1)
            .0
            .sign_multi(read(&module()), None, false, false)
            .unwrap()
            .0,
    );
    let second = sign(&first, &key(2)).unwrap().file;
    let third = written(
        &theirs(3)
            .0
            .sign_multi(read(&second), None, false, false)
            .unwrap()
            .0,
    );
    we_accept(&third, None, &[1, 2, 3]);
    for seed in [1, 2, 3] {
        theirs(seed)
            .1
            .verify(&mut Cursor::new(&third), None)
            .unwrap();
    }
}

#[test]
fn lengths_that_are_not_in_their_shortest_form_verify_both_ways() {
    let padded = [
        CORE,
        b"\x01\x81\x80\x80\x80\x00\x00",
        b"\x00\x85\x00\x81\x00x\x07\x07",
    ]
    .concat();
    let signed = sign(&padded, &key(1)).unwrap().file;
    we_accept(&signed, None, &[1]);
    let public = theirs(1).1;
    public.verify(&mut Cursor::new(&signed), None).unwrap();
    public
        .verify_multi(&mut Cursor::new(&signed), None, |_| true)
        .unwrap();
    assert_eq!(written(&read(&signed)), signed);
    let theirs = written(&theirs(1).0.sign(read(&padded), None).unwrap());
    we_accept(&theirs, None, &[1]);
    let detached = sign_detached(&padded, None, &key(1)).unwrap();
    public
        .verify(&mut Cursor::new(&padded), Some(&detached))
        .unwrap();
}

#[test]
fn a_key_that_they_name_otherwise_is_found() {
    let signed = theirs(1)
        .0
        .sign(read(&module()), Some(&b"release key".to_vec()))
        .unwrap();
    let report = verify(&written(&signed), None, &[key(2).public(), key(1).public()]).unwrap();
    assert_eq!(report.statements[0].signer, Signer::Known(key(1).public()));
    assert_eq!(report.statements[0].coverage, Coverage::Whole);
    let report = verify(&written(&signed), None, &[key(2).public()]).unwrap();
    assert!(
        matches!(&report.statements[0].signer, Signer::Unknown { key_id } if key_id == b"release key")
    );
}
