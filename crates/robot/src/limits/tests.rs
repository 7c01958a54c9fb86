use proptest::prelude::*;

use super::*;

fn robot(joints: &[(f64, f64, f64)]) -> Description {
    let joints = joints.iter().enumerate().map(|(index, (min, max, max_velocity))| Joint {
        name: format!("joint_{index}"),
        unit: Unit::Degrees,
        min: *min,
        max: *max,
        max_velocity: *max_velocity,
    });
    Description { kind: "scripted".to_owned(), joints: joints.collect(), cameras: Vec::new() }
}

/// One joint, −90 … 90°, 60 °/s at 30 Hz: 2° a period, 6° from where it is.
fn one_joint() -> Limiter {
    let mut limiter = Limiter::new(&robot(&[(-90.0, 90.0, 60.0)]), None, 30.0).unwrap();
    limiter.stands_at(&[0.0]);
    limiter
}

#[test]
fn each_limit_is_named() {
    let mut limiter = one_joint();
    let mut check = |last: f64, wanted: f64, observed: f64, goal: f64, by: Option<Clamp>| {
        limiter.stands_at(&[last]);
        let limited = limiter.limit(&[wanted], &[observed]).unwrap();
        assert_eq!(limited.goal, [goal]);
        assert_eq!(limited.clamped.first().map(|clamped| clamped.by), by);
    };
    check(0.0, 1.5, 0.0, 1.5, None);
    check(0.0, 10.0, 5.0, 2.0, Some(Clamp::Velocity));
    check(5.0, 7.0, 0.0, 6.0, Some(Clamp::Step));
    check(89.0, 91.0, 89.0, 90.0, Some(Clamp::Range));
    // Pushed away from its goal by 40°, the arm is not told to go back: its goal follows it.
    check(40.0, 40.0, 0.0, 38.0, Some(Clamp::Step));
    check(85.0, 85.0, 120.0, 87.0, Some(Clamp::Step));
    // A joint that starts outside of its range starts from the edge.
    check(95.0, 95.0, 95.0, 90.0, Some(Clamp::Range));
    // One reading that is nonsense moves the goal by no more than a period's way.
    check(0.0, 0.0, 1e300, 2.0, Some(Clamp::Step));
}

#[test]
fn what_is_no_number_is_refused_whole() {
    let limiter = one_joint();
    let refused = limiter.limit(&[f64::NAN], &[0.0]).unwrap_err().to_string();
    assert_eq!(refused, "an action is NaN for joint joint_0: it is not sent");
    assert!(limiter.limit(&[f64::NEG_INFINITY], &[0.0]).is_err());
    assert_eq!(limiter.limit(&[1.0, 2.0], &[0.0]), Err(Refusal::Length { found: 2, joints: 1 }));
}

#[test]
fn wrong_descriptions_and_steps_are_refused() {
    let of = |joint, max_step: Option<&[f64]>| Limiter::new(&robot(&[joint]), max_step, 30.0).unwrap_err();
    assert!(of((5.0, 5.0, 1.0), None).contains("calibrate scripted"));
    assert!(of((f64::NAN, 5.0, 1.0), None).contains("joint_0"));
    assert!(of((0.0, 5.0, 0.0), None).contains("largest velocity 0"));
    assert!(of((0.0, 5.0, 1.0), Some(&[1.0, 2.0])).contains("2 largest steps"));
    assert!(of((0.0, 5.0, 1.0), Some(&[f64::INFINITY])).contains("inf"));
}

#[test]
fn a_joint_far_outside_its_range_is_found() {
    let limiter = one_joint();
    assert!(limiter.outside(&[95.9]).is_none());
    assert_eq!(
        limiter.outside(&[-96.1]).map(|(joint, at)| (joint.name.as_str(), at)),
        Some(("joint_0", -96.1))
    );
}

/// Everything that a wrong model could say.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -200.0..200.0_f64, Just(f64::NAN), Just(f64::MAX), Just(f64::MIN), Just(5e-324)]
}

proptest! {
    #[test]
    fn nothing_gets_past_the_limits(
        (min, width, velocity) in (-100.0..100.0_f64, 0.01..300.0_f64, 0.01..1000.0_f64),
        step in prop::option::of(0.01..50.0_f64),
        actions in prop::collection::vec((any_number(), -300.0..300.0_f64, 0.0..=1.0_f64), 1..80),
    ) {
        let max = min + width;
        let given = step.map(|step| [step]);
        let given = given.as_ref().map(<[f64; 1]>::as_slice);
        let mut limiter = Limiter::new(&robot(&[(min, max, velocity)]), given, 30.0).unwrap();
        let (step, change) = (step.unwrap_or(velocity * 0.1), velocity / 30.0);
        let tolerance = 1e-12 * (max.abs() + min.abs() + step + change + 300.0);
        let mut last = min;
        for (wanted, observed, follows) in actions {
            // Half of the arms follow their goal, the others are pushed about.
            let observed = if follows < 0.5 { last } else { observed };
            let Ok(limited) = limiter.limit(&[wanted], &[observed]) else {
                prop_assert!(!wanted.is_finite());
                continue;
            };
            let goal = limited.goal[0];
            prop_assert!(goal >= min && goal <= max);
            prop_assert!((goal - last).abs() <= change + tolerance, "{} after {}", goal, last);
            let (least, largest) = ((observed - step).clamp(min, max), (observed + step).clamp(min, max));
            let near = goal >= least - tolerance && goal <= largest + tolerance;
            let follows_it = (goal - last).abs() >= change - tolerance && (goal > last) == (observed > last);
            prop_assert!(near || follows_it, "{} after {} at {}", goal, last, observed);
            // What is within all limits is not changed.
            if (wanted - last).abs() <= change && (least..=largest).contains(&wanted) {
                prop_assert!((goal - wanted).abs() <= tolerance);
            }
            prop_assert_eq!(goal != wanted, !limited.clamped.is_empty());
            limiter.sent(&limited.goal);
            last = goal;
        }
    }
}
