//! The stages of a forward, each for several observations at once.
//!
//! What is done row by row is done to the rows of all, and attention stays within each. Every row of a product is summed
//! by itself, so an observation's values are the same whatever is computed beside it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array2, ArrayView3};

use crate::backend::{Backend, Matrix, Repeated, Result, RopeTable, Rows};
use crate::expert::HiddenState;
use crate::language::Slices;
use crate::vision::CHANNELS;

use super::{Latency, Model, Perception, array};

/// What the stages before the language model make of an observation's images.
#[derive(Debug)]
pub(crate) struct Seen<M> {
    vision_features: Arc<M>,
    projected: Arc<M>,
    /// Of these stages alone.
    latency: Latency,
}

impl<M> Clone for Seen<M> {
    fn clone(&self) -> Self {
        let [vision_features, projected] = [&self.vision_features, &self.projected].map(Arc::clone);
        Self { vision_features, projected, latency: self.latency }
    }
}

impl<B: Backend> Model<B> {
    /// Images through towers and projector; checked before, and as many of each observation.
    pub(crate) fn see(&self, pixel_values: &[ArrayView3<'_, f32>]) -> Result<Vec<Seen<B::Matrix>>> {
        let mut clock = Instant::now();
        let vision_features = Arc::new(self.look(pixel_values)?);
        let vision_ms = self.lap(&mut clock)?;
        self.project(vision_features, pixel_values.len(), vision_ms)
    }

    /// As [`Model::see`], with another model's towers where both have the same weights in them.
    pub(crate) fn see_again(&self, seen: &Seen<B::Matrix>) -> Result<Seen<B::Matrix>> {
        let [seen] = array(self.project(Arc::clone(&seen.vision_features), 1, seen.latency.vision_ms)?);
        Ok(seen)
    }

    /// Features of all towers side by side, of all images one after the other.
    fn look(&self, pixel_values: &[ArrayView3<'_, f32>]) -> Result<B::Matrix> {
        let (channels, height, width) = pixel_values[0].dim();
        let values: Vec<_> = pixel_values.iter().map(|one| one.as_standard_layout()).collect();
        let values: Vec<_> = values.iter().map(|one| one.as_slice().unwrap_or_default()).collect();
        let values = if let [one] = values[..] { Cow::Borrowed(one) } else { Cow::Owned(values.concat()) };
        let pixels = self.backend.upload(pixel_values.len() * channels, height * width, &values)?;
        let per_image = CHANNELS * self.towers.len();
        let [features] = array(self.repeated(pixel_values.len(), Repeated::Vision, &[&pixels], &|| {
            let features = self
                .towers
                .iter()
                .enumerate()
                .map(|(index, tower)| tower.forward(self.device(), &pixels, per_image, CHANNELS * index));
            let features = features.collect::<Result<Vec<_>>>()?;
            Ok(vec![self.backend.concat_columns(&features.iter().collect::<Vec<_>>())?])
        })?);
        Ok(features)
    }

    fn project(
        &self,
        vision_features: Arc<B::Matrix>,
        observations: usize,
        vision_ms: f64,
    ) -> Result<Vec<Seen<B::Matrix>>> {
        let mut clock = Instant::now();
        let inputs = [&*vision_features];
        let [projected] = array(self.repeated(observations, Repeated::Projector, &inputs, &|| {
            Ok(vec![self.projector.forward(self.device(), &vision_features)?])
        })?);
        let features = self.split(vision_features, observations)?;
        let projected = self.split(Arc::new(projected), observations)?;
        let latency = Latency { vision_ms, projector_ms: self.lap(&mut clock)?, ..Latency::default() };
        let seen = features.into_iter().zip(projected);
        Ok(seen.map(|(vision_features, projected)| Seen { vision_features, projected, latency }).collect())
    }

    /// What was seen, and prompts, through the language model; checked before.
    pub(crate) fn understand(
        &self,
        seen: &[Seen<B::Matrix>],
        prompts: &[&[u32]],
    ) -> Result<Vec<Perception<B::Matrix>>> {
        let mut lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut perceptions: Vec<_> = seen.iter().map(|_| None).collect();
        // Sequences of one length lie in one matrix.
        for length in lengths {
            let which: Vec<_> = (0..seen.len()).filter(|&index| prompts[index].len() == length).collect();
            let batch: Vec<_> = which.iter().map(|&index| (&seen[index], prompts[index])).collect();
            for (index, perception) in which.into_iter().zip(self.understand_alike(&batch)?) {
                perceptions[index] = Some(perception);
            }
        }
        Ok(perceptions.into_iter().flatten().collect())
    }

    /// Of prompts of one length.
    fn understand_alike(&self, batch: &[(&Seen<B::Matrix>, &[u32])]) -> Result<Vec<Perception<B::Matrix>>> {
        let mut clock = Instant::now();
        let slices = Slices::new(batch[0].0.projected.rows(), batch[0].1.len(), self.queries);
        let length = slices.sequence_len();
        let prompts = batch.iter().map(|(_, prompt)| self.language.embed(self.device(), prompt));
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        let table = self.language.table(&self.backend, length)?;
        let tiled;
        let table = match batch.len() {
            1 => &*table,
            count => {
                tiled = RopeTable {
                    cos: self.times(&table.cos, length, count)?,
                    sin: self.times(&table.sin, length, count)?,
                };
                &tiled
            }
        };
        let parts: Vec<_> = batch.iter().zip(&prompts).map(|((seen, _), p)| (&*seen.projected, p)).collect();
        let inputs: Vec<_> = parts.iter().flat_map(|(projected, prompt)| [*projected, *prompt]).collect();
        let inputs = [&inputs[..], &[&table.cos, &table.sin]].concat();
        let states = self.repeated(batch.len(), Repeated::Language, &inputs, &|| {
            let sequences = self.assemble(&parts)?;
            let mut states = Vec::with_capacity(2 * batch.len() * (self.language.depth() + 1));
            self.language.forward(self.device(), sequences, batch.len(), table, |state| {
                for first in (0..batch.len()).map(|sequence| sequence * length) {
                    for rows in [&slices.task, &slices.action] {
                        let rows = first + rows.start..first + rows.end;
                        states.push(self.backend.concat_rows(&[Rows { matrix: state, rows }])?);
                    }
                }
                Ok(())
            })?;
            Ok(states)
        })?;
        let language_ms = self.lap(&mut clock)?;
        let mut perceptions: Vec<_> = batch
            .iter()
            .map(|(seen, _)| Perception {
                vision_features: Arc::clone(&seen.vision_features),
                projected: Arc::clone(&seen.projected),
                hidden: Vec::with_capacity(self.language.depth() + 1),
                latency: Latency { language_ms, ..seen.latency },
            })
            .collect();
        debug_assert_eq!(
            states.len(),
            2 * batch.len() * (self.language.depth() + 1),
            "a pair a depth and sequence"
        );
        let mut states = states.into_iter();
        let pairs = std::iter::from_fn(|| Some(HiddenState { task: states.next()?, action: states.next()? }));
        pairs.enumerate().for_each(|(index, pair)| perceptions[index % batch.len()].hidden.push(pair));
        Ok(perceptions)
    }

    /// Hidden states and the robot's state to normalised actions of one expert, and the time it took in milliseconds.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn act(
        &self,
        hidden: &[HiddenState<B::Matrix>],
        proprio: &[f32],
        expert: usize,
    ) -> Result<(Array2<f32>, f64)> {
        self.check_proprio(proprio)?;
        let mut clock = Instant::now();
        let proprio = self.backend.upload(1, proprio.len(), proprio)?;
        let actions = self.expert.forward(self.device(), hidden, &proprio, expert)?.to_host()?;
        Ok((actions, self.lap(&mut clock)?))
    }

    /// [`Backend::repeated`] of one observation: batches are of many shapes, and every recording keeps memory.
    fn repeated(
        &self,
        observations: usize,
        what: Repeated,
        inputs: &[&B::Matrix],
        work: &dyn Fn() -> Result<Vec<B::Matrix>>,
    ) -> Result<Vec<B::Matrix>> {
        if observations == 1 { self.backend.repeated(what, inputs, work) } else { work() }
    }

    /// As many rows of each observation.
    fn split(&self, matrix: Arc<B::Matrix>, observations: usize) -> Result<Vec<Arc<B::Matrix>>> {
        if observations == 1 {
            return Ok(vec![matrix]);
        }
        let each = matrix.rows() / observations;
        let rows = (0..observations).map(|index| index * each..(index + 1) * each);
        let part = |rows| Ok(Arc::new(self.backend.concat_rows(&[Rows { matrix: &matrix, rows }])?));
        rows.map(part).collect()
    }

    /// The first `rows` rows of a matrix, `times` times.
    fn times(&self, matrix: &B::Matrix, rows: usize, times: usize) -> Result<B::Matrix> {
        let parts: Vec<_> = (0..times).map(|_| Rows { matrix, rows: 0..rows }).collect();
        self.backend.concat_rows(&parts)
    }

    /// Sequences of patches and prompts: the first token, the patches, the rest of the prompt, the action queries; up to what
    /// is read (see [`Slices`]).
    fn assemble(&self, parts: &[(&B::Matrix, &B::Matrix)]) -> Result<B::Matrix> {
        let all: Vec<u32> = (0..self.queries as u32 - 1).collect();
        let queries = self.backend.gather(&self.weights[self.action_queries], &all)?;
        let mut rows = Vec::with_capacity(4 * parts.len());
        for (projected, prompt) in parts {
            rows.push(Rows { matrix: *prompt, rows: 0..1 });
            rows.push(Rows { matrix: *projected, rows: 0..projected.rows() });
            rows.push(Rows { matrix: *prompt, rows: 1..prompt.rows() });
            rows.push(Rows { matrix: &queries, rows: 0..queries.rows() });
        }
        self.backend.concat_rows(&rows)
    }

    /// Milliseconds since `clock`, which starts again.
    fn lap(&self, clock: &mut Instant) -> Result<f64> {
        self.backend.synchronize()?;
        let now = Instant::now();
        let elapsed = now.duration_since(std::mem::replace(clock, now));
        Ok(elapsed.as_secs_f64() * 1e3)
    }
}
