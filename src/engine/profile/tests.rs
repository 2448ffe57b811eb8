//! Profiles: what is stored is read back, damage is told, and the stored form stays what it was.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn ids_hold_the_place_of_their_first_event(born in 1_u64..1 << 50, at in 0_i64..1 << 42) {
        let id = |collection| profile_id(collection, Offset(born), Timestamp::from_millis(at));
        prop_assert_ne!(id(Collection::Users), id(Collection::Accounts));
        let id = id(Collection::Users);
        prop_assert_eq!(birth_of(id), Offset(born));
        prop_assert_eq!(id.get_version_num(), 7);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..200) {
        prop_assert!(Profile::decode(&bytes.into()).is_err());
        let mut row = full().encode().unwrap();
        let at = at % row.len();
        row[at] ^= 1;
        prop_assert!(Profile::decode(&row.into()).is_err());
    }
}

fn full() -> Profile {
    let mut profile = Profile::new(ProfileNo(7), Collection::Accounts, Offset(9), Timestamp::from_millis(5));
    profile.kin.update(|kin| {
        kin.former.push(ProfileNo(3));
        kin.accounts.push(ProfileNo(4));
    });
    let value = OutcomeValue::Value(Some("1".into()));
    profile.set_outcome(Outcome { computation: ComputationNo(2), value, since: Timestamp::EPOCH });
    profile.note_event(Pointer { offset: Offset(9), at: Timestamp::EPOCH }, Timestamp::from_millis(5), true);
    profile.set_due(ComputationNo(2), Some(Timestamp::EPOCH));
    profile
}

#[test]
fn it_is_read_back_and_written_the_same() {
    let profile = full();
    let row = profile.encode().unwrap();
    let read = Profile::decode(&row.clone().into()).unwrap();
    assert_eq!(read.encode().unwrap(), row, "untouched");
    assert_eq!(read.kin.get(), profile.kin.get());
    assert_eq!(read.outcome(ComputationNo(2)), profile.outcome(ComputationNo(2)));
    assert_eq!(read.pointers(), profile.pointers());
    assert_eq!(read.due_at(), Some(Timestamp::EPOCH));
    assert_eq!((read.id, read.no, read.collection), (profile.id, profile.no, profile.collection));
    assert_eq!(Who::peek(&row[..row.len().min(WHO_BYTES)]).unwrap(), profile.who());
    let mut touched = read;
    touched.set_due(ComputationNo(2), None);
    touched.set_due(ComputationNo(2), Some(Timestamp::EPOCH));
    assert_eq!(touched.encode().unwrap(), row, "changed there and back");
}

/// Whoever changes what is stored changes [`FORMAT`], too: a part that cannot be read would be taken for empty.
#[test]
fn the_stored_form_stays_what_it_was() {
    let mut profile = full();
    profile.owned.update(|owned| {
        owned.merges = 1;
        owned.identifiers.push(crate::engine::identity::resolve::Held {
            type_no: 3,
            value: "u1".into(),
            first_seen: Timestamp::from_millis(4),
            source: crate::domain::SourceNo(2),
            message_id: "m".into(),
            brought_by: ProfileNo(7),
        });
    });
    let write = crate::engine::traits::Write {
        at: Timestamp::from_millis(6),
        message_id: "m".into(),
        source: crate::domain::SourceNo(2),
        public: false,
    };
    profile.traits.update(|traits| traits.apply(&write, [("plan".to_owned(), "\"pro\"")]));
    let (account, computation) = (ProfileNo(4), ComputationNo(2));
    profile.seats.update(|seats| {
        seats.set_counted(account, computation, Some(5));
        seats.recount(&Recount { account, computation, before: None, now: Some(5) });
    });
    assert_eq!(
        hex::encode(profile.encode().unwrap()),
        "08149fd746c2ecaba20c0000000400000014000000060000000000000003000000030000000d0000000701000900090a0a00010001060275310804016d070100010301040104706c616e01052270726f2200010c016d040002040301310902010001090001040102050001020103010001"
    );
}

#[test]
fn the_earliest_due_time_is_known() {
    let mut profile = full();
    let at = Timestamp::from_millis;
    profile.set_due(ComputationNo(3), Some(at(-5)));
    assert_eq!(profile.due_at(), Some(at(-5)));
    profile.set_due(ComputationNo(3), Some(at(8)));
    assert_eq!(profile.due_at(), Some(at(0)));
    assert_eq!(profile.take_due(at(0)), [ComputationNo(2)]);
    assert_eq!(profile.due_at(), Some(at(8)));
    profile.retain_versions(|_| true, |_| false);
    assert_eq!(profile.due_at(), None);
}

#[test]
fn neighbours_do_not_look_alike() {
    let at = Timestamp::from_millis(1_700_000_000_000);
    let id = |born| profile_id(Collection::Users, Offset(born), at).simple().to_string();
    assert_ne!(id(1).get(20..), id(2).get(20..));
}
