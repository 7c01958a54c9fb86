//! Values of the parameters in one call.

use skillweld_plugin_abi as abi;

use crate::param::{Kind, Param};

/// Where a parameter's value stands, worked out once per method.
#[derive(Debug)]
pub(crate) struct Slot {
    name: &'static str,
    kind: Kind,
    per_expert: bool,
    /// Among the parameters that are as `per_expert` as this one.
    index: usize,
}

pub(crate) fn slots(params: &[Param]) -> Vec<Slot> {
    let mut next = [0; 2];
    let slot = |param: &Param| {
        let index = next[usize::from(param.per_expert)];
        next[usize::from(param.per_expert)] += 1;
        Slot { name: param.name, kind: param.kind, per_expert: param.per_expert, index }
    };
    params.iter().map(slot).collect()
}

/// The parameters, as the recipe or the defaults give them. The host has checked types and ranges.
///
/// Asking for a name that the method's [`Spec`](crate::Spec) does not have, or as another kind, is a mistake in the
/// method and panics, which the SDK turns into an error that names the parameter. A look-up compares a few short
/// strings: do it once a block, not once an element.
#[derive(Debug, Clone, Copy)]
pub struct Params<'a> {
    slots: &'a [Slot],
    global: &'a [f64],
    per_expert: &'a [f64],
    experts: usize,
}

impl<'a> Params<'a> {
    /// # Safety
    /// `params` holds valid pointers for `'a`, or null ones with counts of 0.
    pub(crate) unsafe fn new(params: &abi::Params, slots: &'a [Slot]) -> Self {
        let experts = params.expert_count as usize;
        // SAFETY: the caller's promise; the lengths are those of the boundary's documentation.
        unsafe {
            Self {
                slots,
                global: crate::raw::slice(params.global, params.global_count as usize),
                per_expert: crate::raw::slice(params.per_expert, params.per_expert_count as usize * experts),
                experts,
            }
        }
    }

    /// Number of experts.
    pub const fn experts(&self) -> usize {
        self.experts
    }

    /// Value of a number.
    pub fn number(&self, name: &str) -> f64 {
        self.global[self.index(name, Kind::Number, false)]
    }

    /// Value of an integer.
    pub fn integer(&self, name: &str) -> i64 {
        self.global[self.index(name, Kind::Integer, false)] as i64
    }

    /// Value of a boolean.
    pub fn boolean(&self, name: &str) -> bool {
        self.global[self.index(name, Kind::Boolean, false)] != 0.0
    }

    /// The word chosen.
    pub fn choice(&self, name: &str) -> &'static str {
        let slot = self.slot(name);
        match slot.kind {
            Kind::Choice(words) if !slot.per_expert => words[self.global[slot.index] as usize],
            _ => panic!("parameter `{name}` is not one choice for all experts"),
        }
    }

    /// Values of a number for each expert.
    pub fn expert_numbers(&self, name: &str) -> &'a [f64] {
        let index = self.index(name, Kind::Number, true);
        &self.per_expert[index * self.experts..][..self.experts]
    }

    /// Value of a number for one expert.
    pub fn expert_number(&self, name: &str, expert: usize) -> f64 {
        self.expert_numbers(name)[expert]
    }

    fn index(&self, name: &str, kind: Kind, per_expert: bool) -> usize {
        let slot = self.slot(name);
        assert!(
            slot.kind == kind && slot.per_expert == per_expert,
            "parameter `{name}` is declared as {:?}{}, but read as {kind:?}{}",
            slot.kind,
            if slot.per_expert { " per expert" } else { "" },
            if per_expert { " per expert" } else { "" },
        );
        slot.index
    }

    fn slot(&self, name: &str) -> &'a Slot {
        let slot = self.slots.iter().find(|slot| slot.name == name);
        slot.unwrap_or_else(|| panic!("the method's spec has no parameter `{name}`"))
    }
}
