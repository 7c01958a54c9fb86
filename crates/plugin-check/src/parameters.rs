//! Values for a method's parameters, drawn from its own schema.

use core::fmt;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use skillweld_plugin_host::{Bound, HostHooks, Method, ParamKind, ParamSpec, PluginError, Range};

/// One value a parameter, or one an expert for those that each expert has; in the schema's order.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    values: Vec<(ParamSpec, Vec<Value>)>,
}

/// How far from the ordinary the values may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Defaults; what has none is drawn as in `Tame`.
    Defaults,
    /// Positive powers of two within range: products with them round nothing, so results can be compared closely.
    Tame,
    /// Anything that the schema allows: zeros, negative numbers, thirds, the ends of the range.
    Wild,
}

impl Parameters {
    pub(crate) fn strategy(method: &Method, expert_count: usize, reach: Reach) -> BoxedStrategy<Self> {
        let mut drawn: BoxedStrategy<Vec<(ParamSpec, Vec<Value>)>> = Just(Vec::new()).boxed();
        for spec in method.params() {
            let count = if spec.per_expert { expert_count } else { 1 };
            let values = proptest::collection::vec(select(candidates(spec, reach)), count);
            let spec = spec.clone();
            drawn = (drawn, values)
                .prop_map(move |(mut all, values)| {
                    all.push((spec.clone(), values));
                    all
                })
                .boxed();
        }
        drawn.prop_map(|values| Self { values }).boxed()
    }

    /// Checks them and asks for the plan, as a merge would.
    pub(crate) fn bind(
        &self,
        method: &Method,
        expert_count: usize,
        hooks: &HostHooks<'_>,
    ) -> Result<Bound, PluginError> {
        method.bind(expert_count, hooks, |spec, expert| {
            let values = self.values.iter().find(|(own, _)| own.name == spec.name).map(|(_, values)| values);
            Ok(values.and_then(|values| values.get(expert.unwrap_or(0))).cloned())
        })
    }

    /// Those of expert `order[k]` become those of expert k.
    pub(crate) fn reordered(&self, order: &[usize]) -> Self {
        let reorder = |(spec, values): &(ParamSpec, Vec<Value>)| {
            let values = match spec.per_expert {
                true => order.iter().map(|&k| values[k].clone()).collect(),
                false => values.clone(),
            };
            (spec.clone(), values)
        };
        Self { values: self.values.iter().map(reorder).collect() }
    }

    /// Sets a parameter, for all experts, where the method has it and allows the value.
    pub(crate) fn with(&self, name: &str, value: &Value) -> Option<Self> {
        let mut changed = self.clone();
        let (spec, values) = changed.values.iter_mut().find(|(spec, _)| spec.name == name)?;
        spec.kind.encode(value)?;
        values.fill(value.clone());
        Some(changed)
    }

    /// A bound of the factor by which they may blow up an input: the product over numbers of max(|v|, 1/|v|).
    pub(crate) fn gain(&self) -> f64 {
        let numeric = |spec: &ParamSpec| matches!(spec.kind, ParamKind::Number(_) | ParamKind::Integer(_));
        let largest = |values: &[Value]| {
            let numbers = values.iter().filter_map(Value::as_f64).filter(|&x| x != 0.0);
            numbers.fold(1.0, |gain: f64, x| gain.max(x.abs()).max(1.0 / x.abs()))
        };
        self.values.iter().filter(|(spec, _)| numeric(spec)).map(|(_, values)| largest(values)).product()
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.values.is_empty() {
            return f.write_str("none");
        }
        for (i, (spec, values)) in self.values.iter().enumerate() {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            let values = if spec.per_expert { format!("[{}]", values.join(", ")) } else { values.concat() };
            write!(f, "{}{} = {values}", if i > 0 { ", " } else { "" }, spec.name)?;
        }
        Ok(())
    }
}

/// The simplest first: a failing case is shrunk towards it.
fn candidates(spec: &ParamSpec, reach: Reach) -> Vec<Value> {
    let mut values: Vec<Value> = spec.default.iter().cloned().collect();
    if reach == Reach::Defaults && !values.is_empty() {
        return values;
    }
    values.extend(match &spec.kind {
        ParamKind::Boolean => vec![json!(false), json!(true)],
        ParamKind::Choice(words) => words.iter().map(|word| json!(word)).collect(),
        ParamKind::Number(range) => numbers(*range, reach).into_iter().map(|x| json!(x)).collect(),
        ParamKind::Integer(range) => integers(*range).into_iter().map(|x| json!(x)).collect(),
    });
    values.retain(|value| spec.kind.encode(value).is_some());
    if values.is_empty() {
        // No value is allowed (whole numbers from 0.2 to 0.8): let the host say so.
        values.push(Value::Null);
    }
    values
}

fn numbers(range: Range, reach: Reach) -> Vec<f64> {
    let tame = [1.0, 0.5, 2.0, 0.25, 4.0];
    let wild = [0.0, 1.0 / 3.0, 0.9, -1.0, -0.5, -3.0, 100.0, 1e-6, range.min, range.max];
    let mut numbers = tame.to_vec();
    if reach == Reach::Wild {
        numbers.extend(wild.into_iter().filter(|x| x.is_finite()));
    }
    // A range far off or narrow may hold none of these.
    if !numbers.iter().any(|&x| range.contains(x)) {
        let high = if range.max.is_finite() { range.max } else { range.min + 1.0 };
        let low = if range.min.is_finite() { range.min } else { high - 1.0 };
        numbers.extend([low.midpoint(high), high]);
    }
    numbers
}

/// Only small ones: an integer is often a number of iterations.
fn integers(range: Range) -> Vec<f64> {
    let low =
        if range.min.is_finite() { range.min.ceil() + f64::from(u8::from(range.exclusive_min)) } else { 0.0 };
    vec![low, low + 1.0, low + 2.0, low + 3.0]
}
