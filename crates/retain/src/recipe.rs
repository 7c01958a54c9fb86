//! An interpolation as a recipe for the merge.

use std::path::Path;

use serde_json::{Map, Value, json};
use skillweld_merge::recipe::Recipe;

use crate::{Interpolation, Keep, Method, RetainError};

/// What the pretrained policy is called in plans and errors.
pub(crate) const BASE: &str = "base";
/// What the finetuned policy is called.
pub(crate) const FINETUNED: &str = "finetuned";

/// The recipe. `keep` says whose normalisation buffers the weights get, where there are any.
///
/// # Errors
/// A path that is no UTF-8, a dtype that does not exist.
pub(crate) fn recipe(
    base: &Path,
    finetuned: &Path,
    interpolation: &Interpolation,
    keep: Option<Keep>,
) -> Result<Recipe, RetainError> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| RetainError::NotUtf8 { path: path.to_owned() })
    };
    // In the form that takes paths literally.
    let model = |path: &Path| Ok::<_, RetainError>(json!({"model": {"path": text(path)?}}));
    let alpha = interpolation.alpha;
    let (method, factor) = match interpolation.method {
        Method::Linear => ("lerp", "t"),
        Method::Slerp => ("slerp", "t"),
        Method::Dare => ("dare_linear", "weight"),
        Method::DareSlerp => ("dare_slerp", "t"),
    };
    let mut parameters = Map::from_iter([(factor.to_owned(), json!(alpha.other))]);
    if let Some(density) = interpolation.density {
        parameters.insert("density".to_owned(), json!(density));
    }
    let group = |alpha: f64| json!({ factor: alpha });
    let mut recipe = json!({
        "merge_method": method,
        "base_model": model(base)?,
        "models": [
            {"model": model(base)?, "name": BASE},
            {"model": model(finetuned)?, "name": FINETUNED},
        ],
        "parameters": parameters,
        "groups": {
            "vision": group(alpha.vision),
            "language": group(alpha.language),
            "action": group(alpha.action),
        },
        "action_expert": "merge",
        "seed": interpolation.seed,
    });
    if let Some(dtype) = &interpolation.dtype {
        recipe["out_dtype"] = json!(dtype);
    }
    if let Some(keep) = keep {
        let name = match keep {
            Keep::Base => BASE,
            Keep::Finetuned => FINETUNED,
        };
        recipe["statistics"] = json!(name);
    }
    // JSON is YAML.
    Ok(Recipe::parse(&Value::to_string(&recipe))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use crate::Alphas;

    #[test]
    fn every_interpolation_is_a_recipe() {
        let alpha = Alphas { vision: 0.1, language: 0.2, action: 0.3, other: 0.4 };
        for (method, id, density) in [
            (Method::Linear, "lerp", None),
            (Method::Slerp, "slerp", None),
            (Method::Dare, "dare_linear", Some(0.5)),
            (Method::DareSlerp, "dare_slerp", Some(0.5)),
        ] {
            let interpolation = Interpolation {
                method,
                density,
                seed: 7,
                dtype: Some("float32".into()),
                ..Interpolation::linear(alpha)
            };
            let paths = (Path::new("a b/c+d"), Path::new("-e: \"f'"));
            let value = recipe(paths.0, paths.1, &interpolation, Some(Keep::Finetuned)).unwrap().to_value();
            let factor = if method == Method::Dare { "weight" } else { "t" };
            assert_eq!(value["merge_method"], id);
            assert_eq!(value["parameters"][factor], 0.4);
            assert_eq!(value["parameters"].get("density"), density.map(Value::from).as_ref());
            assert_eq!(value["groups"]["vision"][factor], 0.1);
            assert_eq!(value["groups"]["language"][factor], 0.2);
            assert_eq!(value["groups"]["action"][factor], 0.3);
            assert_eq!(value["base_model"]["model"]["path"], "a b/c+d");
            assert_eq!(value["models"][1]["model"], "-e: \"f'");
            assert_eq!((&value["statistics"], &value["seed"]), (&json!("finetuned"), &json!(7)));
            assert_eq!(value["out_dtype"], "F32");
        }
    }
}
