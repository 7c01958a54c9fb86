//! Parameters against their schema.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use serde_json::{Value, json};
use skillweld_plugin_host::{HostHooks, Method, ParamKind, PluginError, Range};

fn method(properties: &Value) -> Method {
    let schema = json!({ "type": "object", "properties": properties }).to_string().replace('"', "\\\"");
    support::method(&[&format!("SCHEMA=\"{schema}\"")])
}

/// What binding `p` to `value` says.
fn refusal(property: &Value, value: &Value) -> String {
    let method = method(&json!({ "p": property }));
    let bound = method.bind::<PluginError>(2, &HostHooks::SILENT, |_, _| Ok(Some(value.clone())));
    bound.unwrap_err().to_string()
}

#[test]
fn specs_keep_order_and_detail() {
    let method = method(&json!({
        "weight": { "type": "number", "default": 1.0, "x-per-expert": true, "description": "Its share" },
        "density": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 },
        "scope": { "type": "string", "enum": ["tensor", "global"], "default": "tensor" },
    }));
    let [weight, density, scope] = method.params() else { panic!("three parameters expected") };
    assert_eq!(
        (weight.name.as_str(), weight.per_expert, weight.description.as_str()),
        ("weight", true, "Its share")
    );
    assert_eq!(weight.default, Some(json!(1.0)));
    assert_eq!(density.kind, ParamKind::Number(Range { min: 0.0, max: 1.0, exclusive_min: true }));
    assert_eq!(scope.kind, ParamKind::Choice(vec!["tensor".into(), "global".into()]));
}

#[test]
fn values_out_of_range_are_named() {
    let density = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 });
    assert_eq!(
        refusal(&density, &json!(1.5)),
        "probe: parameter `p` is 1.5, allowed is a number above 0 and at most 1"
    );
    assert!(refusal(&density, &json!(0)).contains("is 0, allowed"));
    assert!(refusal(&density, &json!("many")).contains("is \"many\""));
    assert!(
        refusal(&json!({ "type": "integer", "minimum": 1 }), &json!(2.5))
            .contains("a whole number at least 1")
    );
    assert!(refusal(&json!({ "type": "integer" }), &json!(1e300)).contains("allowed is a whole number"));
    assert!(refusal(&json!({ "type": "boolean" }), &json!(1)).contains("allowed is true or false"));
    let choice = json!({ "type": "string", "enum": ["sum", "mean"] });
    assert!(refusal(&choice, &json!("median")).contains("is \"median\", allowed is one of sum, mean"));
    let each = json!({ "type": "number", "maximum": 1, "x-per-expert": true });
    assert!(refusal(&each, &json!(2)).contains("parameter `p` of expert 0 is 2"));
}

#[test]
fn not_even_an_unbounded_number_may_be_infinite() {
    let unbounded =
        ParamKind::Number(Range { min: f64::NEG_INFINITY, max: f64::INFINITY, exclusive_min: false });
    assert_eq!(unbounded.encode(&json!(1e308)), Some(1e308));
    // JSON has no NaN or infinity: they arrive as null.
    assert_eq!(unbounded.encode(&json!(f64::NAN)), None);
    assert_eq!(unbounded.encode(&json!(f64::INFINITY)), None);
}

#[test]
fn required_parameters_are_asked_for() {
    let method = method(&json!({ "t": { "type": "number" } }));
    let error = method.bind_defaults(2, &HostHooks::SILENT).unwrap_err();
    assert_eq!(error.to_string(), "probe: parameter `t` is required: a number");
}

#[test]
fn expert_counts_are_checked() {
    let method = method(&json!({}));
    let error = method.bind_defaults(4, &HostHooks::SILENT).unwrap_err();
    assert_eq!(error.to_string(), "probe takes 1 to 3 experts, got 4");
}
