//! Expert heads, projectors and router subspaces, whichever file holds them.

use std::collections::BTreeMap;
use std::path::Path;

use skillweld_store::Checkpoint;
use skillweld_tensor::TensorView;

use crate::error::problem;
use crate::layout::ROUTER_PAIRS;
use crate::{MergedError, Role};

/// A part of an expert that lies beside its vision-language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExpertPart {
    /// The action expert: trunk and expert head.
    ActionHead,
    /// The projector of the robot's own state.
    ProprioProjector,
    /// The projector of noisy actions (diffusion heads only).
    NoisyActionProjector,
}

impl ExpertPart {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::ActionHead, Self::ProprioProjector, Self::NoisyActionProjector];

    /// The name that its published files begin with: `<name>--<step>_checkpoint.pt`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActionHead => "action_head",
            Self::ProprioProjector => "proprio_projector",
            Self::NoisyActionProjector => "noisy_action_projector",
        }
    }

    /// Splits a name of `action_expert.safetensors`: projectors have their part's name in front.
    pub fn of(name: &str) -> (Self, &str) {
        let projectors = [Self::ProprioProjector, Self::NoisyActionProjector];
        let own = |part: Self| Some((part, name.strip_prefix(part.name())?.strip_prefix('.')?));
        projectors.into_iter().find_map(own).unwrap_or((Self::ActionHead, name))
    }
}

/// A pair of the router's subspaces of one task, each rank × d with orthonormal rows: of both value projections, or of
/// both key projections.
#[derive(Debug, Clone, Copy)]
pub struct RouterSubspace<'a> {
    /// Of the projection of action-query tokens (`v_adapter` or `k_adapter`).
    pub adapter: TensorView<'a>,
    /// Of the projection of task tokens (`v_task` or `k_task`).
    pub task: TensorView<'a>,
}

/// Where a router's pairs of subspaces lie, in the order of [`ROUTER_PAIRS`].
type RouterPlaces = [[Option<Place>; 2]; ROUTER_PAIRS.len()];

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: usize,
    key: String,
    /// Only this element of a vector that holds one for each task.
    element: Option<usize>,
}

/// Tensors of one part: of all tasks, and of each.
#[derive(Debug, Default)]
struct PartTensors {
    shared: BTreeMap<String, Place>,
    own: Vec<BTreeMap<String, Place>>,
}

/// All parts and the router.
#[derive(Debug)]
pub(crate) struct Parts {
    files: Vec<(Role, Checkpoint)>,
    tensors: [PartTensors; ExpertPart::ALL.len()],
    /// One a task.
    router: Vec<RouterPlaces>,
}

impl Parts {
    /// Nothing yet, for `tasks` tasks.
    pub(crate) fn new(tasks: usize) -> Self {
        let tensors = ExpertPart::ALL.map(|_| PartTensors {
            own: (0..tasks).map(|_| BTreeMap::new()).collect(),
            ..PartTensors::default()
        });
        Self { files: Vec::new(), tensors, router: vec![RouterPlaces::default(); tasks] }
    }

    /// Takes a file; its places are then made with the number returned.
    pub(crate) fn add_file(&mut self, role: Role, file: Checkpoint) -> usize {
        self.files.push((role, file));
        self.files.len() - 1
    }

    pub(crate) fn add_shared(&mut self, part: ExpertPart, name: &str, (file, key): (usize, &str)) {
        let place = Place { file, key: key.to_owned(), element: None };
        self.tensors[part as usize].shared.insert(name.to_owned(), place);
    }

    pub(crate) fn add_own(
        &mut self,
        part: ExpertPart,
        task: usize,
        name: &str,
        (file, key, element): (usize, &str, Option<usize>),
    ) {
        let place = Place { file, key: key.to_owned(), element };
        self.tensors[part as usize].own[task].insert(name.to_owned(), place);
    }

    /// `pair` and `which` as [`ROUTER_PAIRS`] counts.
    pub(crate) fn add_router(&mut self, task: usize, [pair, which]: [usize; 2], (file, key): (usize, &str)) {
        self.router[task][pair][which] = Some(Place { file, key: key.to_owned(), element: None });
    }

    fn view(&self, place: &Place) -> Option<TensorView<'_>> {
        let view = self.files.get(place.file)?.1.get(&place.key)?;
        let Some(element) = place.element else { return Some(view) };
        let size = view.dtype().bits() / 8;
        let bytes = view.bytes().get(element * size..(element + 1) * size)?;
        TensorView::new(view.dtype(), &[1], bytes).ok()
    }

    fn views<'a>(
        &'a self,
        places: &'a BTreeMap<String, Place>,
    ) -> impl Iterator<Item = (&'a str, TensorView<'a>)> {
        places.iter().filter_map(|(name, place)| Some((name.as_str(), self.view(place)?)))
    }

    pub(crate) fn shared(&self, part: ExpertPart) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.views(&self.tensors[part as usize].shared)
    }

    pub(crate) fn own(&self, part: ExpertPart, task: usize) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.views(&self.tensors[part as usize].own[task])
    }

    pub(crate) fn router(&self, task: usize) -> Vec<RouterSubspace<'_>> {
        let view = |place: &Option<Place>| self.view(place.as_ref()?);
        let pair = |[adapter, task]: &[Option<Place>; 2]| {
            Some(RouterSubspace { adapter: view(adapter)?, task: view(task)? })
        };
        self.router[task].iter().filter_map(pair).collect()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (Role, &Checkpoint)> {
        self.files.iter().map(|(role, file)| (*role, file))
    }

    /// Checks that every task has the same tensors of each part, and the router both subspaces of all or none.
    pub(crate) fn check(&self, dir: &Path, tasks: &[String]) -> Result<(), MergedError> {
        for (part, tensors) in ExpertPart::ALL.into_iter().zip(&self.tensors) {
            let Some(first) = tensors.own.first() else { continue };
            for (task, own) in tasks.iter().zip(&tensors.own).skip(1) {
                let lonely = |a: &BTreeMap<String, Place>, b: &BTreeMap<String, Place>| {
                    a.keys().find(|name| !b.contains_key(*name)).cloned()
                };
                for (has, lacks, name) in
                    [(&tasks[0], task, lonely(first, own)), (task, &tasks[0], lonely(own, first))]
                {
                    if let Some(name) = name {
                        let part = part.name();
                        let text = format!(
                            "the {part} of task `{lacks}` lacks `{name}`, which `{has}` has; merge again"
                        );
                        return Err(problem(dir, text));
                    }
                }
            }
        }
        self.check_router(dir, tasks)
    }

    /// Every task has the same pairs of subspaces, both of each, all of one shape.
    fn check_router(&self, dir: &Path, tasks: &[String]) -> Result<(), MergedError> {
        for pair in 0..ROUTER_PAIRS.len() {
            let lacks = |which: &usize| self.router.iter().position(|router| router[pair][*which].is_none());
            let there = self.router.iter().any(|router| router[pair].iter().any(Option::is_some));
            if let Some(which) = (0..2).find(|which| there && lacks(which).is_some()) {
                let (task, name) = (lacks(&which).map_or("", |task| &tasks[task]), ROUTER_PAIRS[pair][which]);
                let text =
                    format!("the router lacks a subspace of task `{task}`, `{task}/{name}`; merge again");
                return Err(problem(dir, text));
            }
        }
        let mut shape = None;
        for (task, router) in tasks.iter().zip(&self.router) {
            for (place, which) in router.iter().flatten().zip(ROUTER_PAIRS.as_flattened()) {
                let Some(view) = place.as_ref().and_then(|place| self.view(place)) else { continue };
                let expected = *shape.get_or_insert(view.shape());
                if view.shape() != expected || view.shape().len() != 2 || !view.dtype().is_computable() {
                    let text = format!(
                        "the router's `{task}/{which}` has shape {:?} and dtype {}, expected rank × width as {expected:?}; \
                         merge again",
                        view.shape(),
                        view.dtype()
                    );
                    return Err(problem(dir, text));
                }
            }
        }
        Ok(())
    }
}
