//! Expert heads, projectors and router subspaces, whichever file holds them.

use std::collections::BTreeMap;
use std::path::Path;

use skillweld_store::Checkpoint;
use skillweld_tensor::TensorView;

use crate::error::problem;
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
    pub(crate) fn of(name: &str) -> (Self, &str) {
        let projectors = [Self::ProprioProjector, Self::NoisyActionProjector];
        let own = |part: Self| Some((part, name.strip_prefix(part.name())?.strip_prefix('.')?));
        projectors.into_iter().find_map(own).unwrap_or((Self::ActionHead, name))
    }
}

/// The router's subspaces of one task: P_k of both value projections, each rank × d with orthonormal rows.
#[derive(Debug, Clone, Copy)]
pub struct RouterSubspace<'a> {
    /// Of the projection of action-query tokens (`v_adapter`).
    pub adapter: TensorView<'a>,
    /// Of the projection of task tokens (`v_task`).
    pub task: TensorView<'a>,
}

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
    /// Adapter and task subspace of each task.
    router: Vec<[Option<Place>; 2]>,
}

impl Parts {
    /// Nothing yet, for `tasks` tasks.
    pub(crate) fn new(tasks: usize) -> Self {
        let tensors = ExpertPart::ALL.map(|_| PartTensors {
            own: (0..tasks).map(|_| BTreeMap::new()).collect(),
            ..PartTensors::default()
        });
        Self { files: Vec::new(), tensors, router: vec![[None, None]; tasks] }
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

    /// `which`: 0 for the adapter subspace, 1 for the task subspace.
    pub(crate) fn add_router(&mut self, task: usize, which: usize, (file, key): (usize, &str)) {
        self.router[task][which] = Some(Place { file, key: key.to_owned(), element: None });
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

    pub(crate) fn router(&self, task: usize) -> Option<RouterSubspace<'_>> {
        let [adapter, task] = &self.router[task];
        Some(RouterSubspace { adapter: self.view(adapter.as_ref()?)?, task: self.view(task.as_ref()?)? })
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
        let complete = self.router.iter().filter(|both| both.iter().all(Option::is_some)).count();
        let empty = self.router.iter().filter(|both| both.iter().all(Option::is_none)).count();
        if empty < tasks.len() && complete < tasks.len() {
            let lacks = self.router.iter().position(|both| both.iter().any(Option::is_none)).unwrap_or(0);
            let text = format!("the router lacks a subspace of task `{}`; merge again", tasks[lacks]);
            return Err(problem(dir, text));
        }
        let mut shape = None;
        for (task, name) in tasks.iter().enumerate() {
            let Some(RouterSubspace { adapter, task }) = self.router(task) else { continue };
            for (which, view) in [("adapter", adapter), ("task", task)] {
                let expected = *shape.get_or_insert(view.shape());
                if view.shape() != expected || view.shape().len() != 2 || !view.dtype().is_computable() {
                    let text = format!(
                        "the router's `{name}/{which}` has shape {:?} and dtype {}, expected rank × width as {expected:?}; \
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
