//! Recording and reading back, without accidents.

mod common;

use std::fs;

use common::{assert_complete, record, spec};
use skillweld_recorder::{
    Dataset, Extra, ExtraKind, ExtraValue, Images, NewFrame, Recorder, RecorderError, TOLERANCE_S,
};

#[test]
fn episodes_come_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let mut recorder = Recorder::create(&path, spec()).unwrap();
    for frames in [1, 40, 7] {
        record(&mut recorder, frames);
    }
    let finished = recorder.finish().unwrap();
    assert_eq!((finished.episodes, finished.frames, finished.discarded), (3, 48, 0));
    let dataset = assert_complete(&path);
    assert_eq!(dataset.tasks(), common::TASKS);
    assert_eq!(dataset.info().robot_type.as_deref(), Some("so101_follower"));
    assert_eq!(dataset.names().0, common::JOINTS);
    let report = dataset.check(TOLERANCE_S, Images::Pixels).unwrap();
    // Of every three frames the second: none of 1, 13 of 40, 2 of 7.
    assert_eq!((report.problems.len(), report.interventions), (0, 15));
    assert!(report.leftovers.is_empty());
    assert!(!path.join(".recording").exists());
}

#[test]
fn a_dataset_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    record(&mut recorder, 4);
    drop(recorder);
    for frames in [2, 3] {
        let mut recorder = Recorder::resume(folder.path(), spec()).unwrap();
        assert!(recorder.leftovers().is_empty());
        record(&mut recorder, frames);
    }
    let dataset = assert_complete(folder.path());
    assert_eq!(dataset.episodes().iter().map(|e| e.first_frame).collect::<Vec<_>>(), [0, 4, 6]);
    // Statistics do not depend on where recording paused.
    let whole = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(whole.path(), spec()).unwrap();
    for frames in [4, 2, 3] {
        record(&mut recorder, frames);
    }
    let read = |path: &std::path::Path| fs::read(path.join("meta/stats.json")).unwrap();
    assert_eq!(read(folder.path()), read(whole.path()));
}

#[test]
fn another_kind_of_dataset_is_refused_with_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    drop(Recorder::create(folder.path(), spec()).unwrap());
    let message = |change: &dyn Fn(&mut skillweld_recorder::Spec)| {
        let mut other = spec();
        change(&mut other);
        Recorder::resume(folder.path(), other).err().unwrap().to_string()
    };
    assert_eq!(
        message(&|spec| spec.fps = 50),
        "fps differs: the dataset has 30, this recording 50; record into a new folder"
    );
    assert_eq!(
        message(&|spec| spec.state[2] = "jaw.pos".into()),
        "observation.state differs: the dataset has float32 3 (shoulder.pos, elbow.pos, gripper.pos), this recording \
         float32 3 (shoulder.pos, elbow.pos, jaw.pos); record into a new folder"
    );
    assert!(
        message(&|spec| spec.cameras[0].width = 33)
            .contains("has image 24 × 32 × 3, this recording image 24 × 33 × 3")
    );
    assert!(message(&|spec| drop(spec.cameras.pop())).contains("observation.images.wrist differs"));
    assert!(message(&|spec| drop(spec.extras.pop())).contains("has float32 1, this recording nothing"));
}

#[test]
fn a_discarded_episode_is_recorded_again_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    record(&mut recorder, 2);
    recorder.start_episode("a task that nobody will have done").unwrap();
    common::add_frames(&mut recorder, 77, 5).unwrap();
    assert_eq!(recorder.frames(), 5);
    recorder.discard_episode().unwrap();
    record(&mut recorder, 3);
    recorder.start_episode("left open").unwrap();
    common::add_frames(&mut recorder, 2, 4).unwrap();
    let finished = recorder.finish().unwrap();
    assert_eq!((finished.episodes, finished.frames, finished.discarded), (2, 5, 4));
    assert_eq!(assert_complete(folder.path()).tasks(), common::TASKS);
}

#[test]
fn a_full_queue_is_said_and_the_frame_is_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let mut large = spec();
    large.cameras.truncate(1);
    (large.cameras[0].height, large.cameras[0].width) = (500, 500);
    let mut recorder = Recorder::create(folder.path(), large).unwrap();
    recorder.start_episode("x").unwrap();
    let mut images = common::images(0, 0);
    images.truncate(1);
    // Noise: the encoder needs milliseconds for it, the loop below microseconds a frame.
    let noise = (0..500 * 500 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    images[0].rgb = noise.collect();
    (images[0].height, images[0].width) = (500, 500);
    let extras = common::extras(0, 2);
    let frame = NewFrame { state: &[0.0; 3], action: &[0.0; 3], images: &images, extras: &extras };
    // 64 may wait; the thread that encodes has one in its hands, and perhaps has done some.
    let offered = 80;
    let mut refused = 0;
    for _ in 0..offered {
        match recorder.add_frame(&frame) {
            Ok(()) => {}
            Err(RecorderError::Behind { waiting, .. }) => {
                assert!(waiting >= 64, "{waiting}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..=16).contains(&refused), "{refused}");
    let saved = recorder.save_episode().unwrap();
    assert_eq!((saved.refused, saved.frames), (refused, offered - refused));
    drop(recorder);
    let dataset = Dataset::open(folder.path()).unwrap();
    assert_eq!(dataset.check(TOLERANCE_S, Images::Pixels).unwrap().problems, []);
}

#[test]
fn frames_that_do_not_fit_are_named_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    recorder.start_episode("x").unwrap();
    common::add_frames(&mut recorder, 0, 1).unwrap();
    let (state, action) = (common::state(0, 1), common::action(0, 1));
    let (images, extras) = (common::images(0, 1), common::extras(1, 3));
    let good = NewFrame { state: &state, action: &action, images: &images, extras: &extras };
    let mut refuse = |frame: NewFrame<'_>| recorder.add_frame(&frame).err().unwrap().to_string();
    assert_eq!(
        refuse(NewFrame { state: &state[1..], ..good }),
        "frame 1: state has 2 numbers, the dataset's has 3"
    );
    assert_eq!(
        refuse(NewFrame { action: &[0.0, f64::NAN, 0.0], ..good }),
        "frame 1: action elbow.pos is NaN: not a number that can be stored"
    );
    assert!(refuse(NewFrame { action: &[0.0, 0.0, 1e300], ..good }).contains("gripper.pos"));
    assert!(
        refuse(NewFrame { images: &images[..1], ..good }).contains("1 images; the dataset has 2 cameras")
    );
    let swapped = [images[1].clone(), images[0].clone()];
    assert!(refuse(NewFrame { images: &swapped, ..good }).contains("camera front: 310 × 16 pixels"));
    let wrong = [extras[0], ExtraValue::I64(1), extras[2]];
    assert!(refuse(NewFrame { extras: &wrong, ..good }).contains("next.done is I64(1)"));
    recorder.add_frame(&good).unwrap();
    assert_eq!(recorder.save_episode().unwrap().frames, 2);
}

#[test]
fn whoever_comes_second_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(folder.path(), spec()).unwrap();
    assert!(matches!(Recorder::resume(folder.path(), spec()), Err(RecorderError::Busy(_))));
    drop(recorder);
    assert!(matches!(Recorder::create(folder.path(), spec()), Err(RecorderError::NotEmpty(_))));
    Recorder::resume(folder.path(), spec()).unwrap();
}

#[test]
fn calls_at_the_wrong_time_and_impossible_specs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = |change: &dyn Fn(&mut skillweld_recorder::Spec)| {
        let mut spec = spec();
        change(&mut spec);
        matches!(Recorder::create(&path("refused"), spec), Err(RecorderError::Spec(_)))
    };
    assert!(refused(&|spec| spec.fps = 0));
    assert!(refused(&|spec| spec.state.clear()));
    assert!(refused(&|spec| spec.action[0] = spec.action[1].clone()));
    assert!(refused(&|spec| spec.cameras[0].height = 0));
    assert!(refused(&|spec| spec.cameras[0].name = "a/b".into()));
    assert!(refused(&|spec| spec.extras[0].name = "timestamp".into()));
    assert!(refused(&|spec| spec.extras.push(spec.extras[1].clone())));
    assert!(!path("refused").exists());

    let mut recorder = Recorder::create(&path("set"), spec()).unwrap();
    assert!(matches!(recorder.save_episode(), Err(RecorderError::State(_))));
    assert!(recorder.start_episode(" ").is_err());
    recorder.start_episode("x").unwrap();
    assert!(matches!(recorder.start_episode("y"), Err(RecorderError::State(_))));
    assert!(matches!(recorder.save_episode(), Err(RecorderError::State(_))));
    recorder.discard_episode().unwrap();
    drop(recorder);
    let dataset = Dataset::open(&path("set")).unwrap();
    assert!(matches!(dataset.frames(0), Err(RecorderError::NoSuchEpisode { episode: 0, total: 0 })));
}

#[test]
fn one_joint_is_a_column_of_numbers_and_no_camera_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = spec();
    small.state.truncate(1);
    small.action.truncate(1);
    small.cameras.clear();
    small.extras.clear();
    let mut recorder = Recorder::create(folder.path(), small).unwrap();
    recorder.start_episode("x").unwrap();
    for frame in 0..3 {
        let value = [f64::from(frame) / 4.0];
        let new = NewFrame { state: &value, action: &value, images: &[], extras: &[] };
        recorder.add_frame(&new).unwrap();
    }
    recorder.save_episode().unwrap();
    let dataset = Dataset::open(folder.path()).unwrap();
    assert_eq!(dataset.check(TOLERANCE_S, Images::Pixels).unwrap().problems, []);
    let states: Vec<_> = dataset.frames(0).unwrap().map(|frame| frame.unwrap().state).collect();
    assert_eq!(states, [[0.0], [0.25], [0.5]]);
}

#[test]
fn whole_numbers_keep_all_their_bits() {
    let folder = tempfile::tempdir().unwrap();
    let mut counted = spec();
    counted.cameras.clear();
    counted.extras = vec![Extra { name: "ticks".into(), kind: ExtraKind::I64 }];
    let mut recorder = Recorder::create(folder.path(), counted).unwrap();
    recorder.start_episode("x").unwrap();
    // What f64 has no number for is among them.
    let values = [i64::MIN, (1 << 53) + 1, i64::MAX].map(ExtraValue::I64);
    for value in &values {
        let extras = std::slice::from_ref(value);
        let new = NewFrame { state: &[0.0; 3], action: &[0.0; 3], images: &[], extras };
        recorder.add_frame(&new).unwrap();
    }
    recorder.save_episode().unwrap();
    let dataset = Dataset::open(folder.path()).unwrap();
    let read: Vec<_> = dataset.frames(0).unwrap().map(|frame| frame.unwrap().extras[0].1).collect();
    assert_eq!(read, values);
}
