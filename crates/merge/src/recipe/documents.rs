//! Several recipes in one file that build on one another, as `mergekit-multi` takes them.

use std::path::Path;

use super::error::{Place, RecipeError};
use super::models::name_fault;
use super::yaml::{Node, Yaml};
use super::{Recipe, Tokenizer, read_text};

/// The recipes of a file. One that has a `name:` is a model to the others, under that name.
#[derive(Debug, Clone)]
pub struct Documents {
    /// In an order in which they can be merged; the last one is what the file is for. Never empty.
    pub stages: Vec<Stage>,
}

/// One recipe of a file.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What other recipes call it.
    pub name: Option<String>,
    /// Its models may be names of other stages: see [`Recipe::place_stage`].
    pub recipe: Recipe,
    /// The stages whose results it takes, as indices into [`Documents::stages`]; all of them smaller than its own.
    pub needs: Vec<usize>,
}

impl Documents {
    /// Reads a recipe file; relative paths in it start at its folder.
    ///
    /// # Errors
    /// What is wrong with a recipe; two recipes with one name, more than one without, and circles.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let mut documents = Self::parse(&read_text(path)?)?;
        for stage in &mut documents.stages {
            stage.recipe.folder = path.parent().map(Path::to_owned);
        }
        Ok(documents)
    }

    /// Parses the text of a recipe file, touching no other.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let roots = Node::parse_all(text)?;
        if roots.is_empty() {
            // Says what it lacks.
            Recipe::parse(text)?;
        }
        let mut stages = Vec::with_capacity(roots.len());
        for root in &roots {
            stages.push(Document::of(root)?);
        }
        refuse_doubles(&stages)?;
        let needs: Vec<Vec<usize>> = stages.iter().map(|stage| stage.needs(&stages)).collect();
        let order = order(&stages, &needs)?;
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, &from)| place[from] = to);
        let sorted = order.iter().map(|&from| {
            let Document { name, recipe, .. } = &stages[from];
            let needs = needs[from].iter().map(|&needed| place[needed]).collect();
            Stage { name: name.clone(), recipe: recipe.clone(), needs }
        });
        Ok(Self { stages: sorted.collect() })
    }
}

impl Recipe {
    /// Says where the result of another recipe of the same file lies, which this one calls `name`.
    pub fn place_stage(&mut self, name: &str, path: &Path) {
        self.stages.insert(name.to_owned(), path.to_owned());
    }
}

/// A recipe as it stands in the file.
struct Document {
    name: Option<String>,
    /// Where the name stands, or else the recipe begins.
    place: Place,
    recipe: Recipe,
}

impl Document {
    fn of(root: &Node) -> Result<Self, RecipeError> {
        let recipe = Recipe::from_root(root)?;
        let named = match &root.value {
            Yaml::Map(entries) => entries.iter().find(|entry| entry.key == "name" && !entry.value.is_null()),
            _ => None,
        };
        let Some(entry) = named else { return Ok(Self { name: None, place: root.place(""), recipe }) };
        let (name, place) = (entry.value.text("name")?.to_owned(), entry.value.place("name"));
        match name_fault(&name) {
            Some(reason) => Err(RecipeError::StageName { place, name, reason }),
            None => Ok(Self { name: Some(name), place, recipe }),
        }
    }

    /// Indices of the stages that it names.
    fn needs(&self, stages: &[Document]) -> Vec<usize> {
        let mut written: Vec<&Path> = self.recipe.models.iter().map(|model| &*model.path).collect();
        if let Some(Tokenizer::Model { path, .. }) = &self.recipe.tokenizer {
            written.push(path);
        }
        let is_named = |stage: &Document| {
            stage.name.as_deref().is_some_and(|name| written.iter().any(|path| *path == Path::new(name)))
        };
        (0..stages.len()).filter(|&index| is_named(&stages[index])).collect()
    }
}

fn refuse_doubles(stages: &[Document]) -> Result<(), RecipeError> {
    for (index, stage) in stages.iter().enumerate() {
        if let Some(first) = stages[..index].iter().find(|other| other.name == stage.name) {
            let problem = match &stage.name {
                Some(name) => {
                    format!("two recipes are called `{name}`, the first in line {}", first.place.line)
                }
                None => format!(
                    "a second recipe without `name:`, the first begins in line {}; only one can be the result",
                    first.place.line
                ),
            };
            return Err(RecipeError::Conflict { place: stage.place.clone(), problem });
        }
    }
    Ok(())
}

/// Indices such that every recipe comes after those that it needs, else in the order of the file. The last is the one
/// without a name, or else the last in the file that no other needs.
fn order(stages: &[Document], needs: &[Vec<usize>]) -> Result<Vec<usize>, RecipeError> {
    let is_needed = |index: &usize| needs.iter().any(|needed| needed.contains(index));
    let unnamed = (0..stages.len()).find(|&index| stages[index].name.is_none());
    let last = unnamed.or_else(|| (0..stages.len()).rev().find(|index| !is_needed(index)));
    let mut order = Vec::with_capacity(stages.len());
    while order.len() < stages.len() {
        let is_next = |index: &usize| {
            let waits = Some(*index) == last && order.len() + 1 < stages.len();
            !waits && !order.contains(index) && needs[*index].iter().all(|needed| order.contains(needed))
        };
        match (0..stages.len()).find(is_next) {
            Some(next) => order.push(next),
            None => return Err(circle(stages, needs, &order)),
        }
    }
    Ok(order)
}

/// What is left once nothing can be next holds a circle, and following needs from anywhere in it leads there.
fn circle(stages: &[Document], needs: &[Vec<usize>], done: &[usize]) -> RecipeError {
    let open = |index: &usize| !done.contains(index);
    let step = |index: usize| needs[index].iter().copied().find(open);
    let mut path: Vec<usize> =
        (0..stages.len()).filter(|index| open(index) && step(*index).is_some()).take(1).collect();
    while let Some(next) = path.last().and_then(|&index| step(index)) {
        if let Some(start) = path.iter().position(|&index| index == next) {
            path.drain(..start);
            break;
        }
        path.push(next);
    }
    let name = |index: &usize| stages[*index].name.as_deref().unwrap_or("the result");
    let names: Vec<&str> = path.iter().chain(path.first()).map(name).collect();
    let place =
        path.first().map_or(Place { path: String::new(), line: 0 }, |&index| stages[index].place.clone());
    let problem = format!("recipes wait for one another: {}", names.join(" needs "));
    RecipeError::Conflict { place, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, models: &[&str]) -> String {
        let name = if name.is_empty() { String::new() } else { format!("name: {name}\n") };
        let models: String = models.iter().map(|model| format!("  - model: {model}\n")).collect();
        format!("{name}merge_method: linear\nparameters: {{weight: 1}}\nmodels:\n{models}")
    }

    fn order_of(documents: &[String]) -> Vec<(Option<String>, Vec<usize>)> {
        let documents = Documents::parse(&documents.join("---\n")).unwrap();
        documents.stages.into_iter().map(|stage| (stage.name, stage.needs)).collect()
    }

    fn problem(documents: &[String]) -> String {
        Documents::parse(&documents.join("---\n")).unwrap_err().to_string()
    }

    #[test]
    fn a_stage_comes_after_those_it_needs_and_the_unnamed_one_last() {
        let documents = [
            document("", &["b", "x"]),
            document("b", &["a", "x"]),
            document("c", &["y"]),
            document("a", &["x"]),
        ];
        let named = |name: &str| Some(name.to_owned());
        let expected = [(named("c"), vec![]), (named("a"), vec![]), (named("b"), vec![1]), (None, vec![2])];
        assert_eq!(order_of(&documents), expected);
    }

    #[test]
    fn without_an_unnamed_one_the_last_that_nobody_needs_is_the_result() {
        let documents = [document("sum", &["a", "b"]), document("a", &["x"]), document("b", &["x"])];
        let names: Vec<_> = order_of(&documents).into_iter().map(|(name, _)| name.unwrap()).collect();
        assert_eq!(names, ["a", "b", "sum"]);
        assert_eq!(order_of(&[document("only", &["x"])]).len(), 1);
    }

    #[test]
    fn a_base_and_a_tokenizer_are_needed_too() {
        let base = "merge_method: slerp\nbase_model: a\nparameters: {t: 0.5}\nmodels: [{model: a}, {model: z}]\n\
                    tokenizer_source: b\n";
        let documents = [base.to_owned(), document("b", &["x"]), document("a", &["x"])];
        assert_eq!(order_of(&documents).last().unwrap().1, [0, 1]);
    }

    #[test]
    fn circles_and_doubles_are_named() {
        let circle =
            [document("a", &["b"]), document("b", &["c"]), document("c", &["b"]), document("", &["a"])];
        assert!(problem(&circle).contains("b needs c needs b"), "{}", problem(&circle));
        assert!(problem(&[document("a", &["a"])]).contains("a needs a"));
        let twice = problem(&[document("a", &["x"]), document("a", &["y"])]);
        assert!(twice.contains("two recipes are called `a`, the first in line 1"), "{twice}");
        let unnamed = problem(&[document("", &["x"]), document("", &["y"])]);
        assert!(unnamed.contains("a second recipe without `name:`"), "{unnamed}");
        let folder = problem(&[document("a/b", &["x"])]);
        assert!(folder.contains("contains a path separator"), "{folder}");
        assert!(problem(&[]).contains("must be a mapping"), "{}", problem(&[]));
    }

    #[test]
    fn a_misspelt_field_is_named_with_its_line_in_the_file() {
        let text = format!("{}---\n{}dtyp: float32\n", document("a", &["x"]), document("", &["a"]));
        let error = Documents::parse(&text).unwrap_err().to_string();
        assert!(
            error.contains("`dtyp`") && error.contains("(line 11)") && error.contains("`dtype`"),
            "{error}"
        );
    }
}
