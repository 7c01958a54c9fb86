use serde_json::{Map, Value};

/// True for the statistics of one data set standing alone, `{"action": {"mean": …}, "proprio": …}`; false for statistics
/// under the names of their data sets, whatever those are called.
pub fn is_one_data_set(statistics: &Map<String, Value>) -> bool {
    let action = statistics.get("action").and_then(Value::as_object);
    action.is_some_and(|action| !action.contains_key("action"))
}

#[cfg(test)]
mod tests {
    use super::is_one_data_set;
    use serde_json::json;

    #[test]
    fn statistics_alone_are_told_from_those_under_a_name() {
        let flat = json!({"action": {"mean": [0]}});
        for alone in
            [flat.clone(), json!({"action": {"q01": [0]}, "proprio": {"q01": [0]}, "num_transitions": 3})]
        {
            assert!(is_one_data_set(alone.as_object().unwrap()), "{alone}");
            for name in ["libero", "action", "proprio"] {
                let named = json!({name: alone});
                assert!(!is_one_data_set(named.as_object().unwrap()), "{named}");
            }
        }
        assert!(!is_one_data_set(json!({}).as_object().unwrap()));
    }
}
