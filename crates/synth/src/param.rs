use crate::Noise;

/// One parameter of a model: its name and shape, and its role, which decides its distribution.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The weight of a linear layer, m × n: what LoRA on "all linear layers" adapts.
    Linear,
    /// Any other weight that multiplies inputs, such as a convolution.
    Kernel,
    /// Rows that are looked up or added: embeddings, positions, learnt tokens.
    Embedding,
    /// A norm's gain.
    Gain,
    /// A residual branch's scale (LayerScale).
    LayerScale,
    Bias,
}

impl Param {
    pub(crate) fn new(name: impl Into<String>, shape: &[usize], role: Role) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), role }
    }

    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Mean and standard deviation of trained weights of this kind; 1/√fan_in where there is a fan-in.
    pub(crate) fn moments(&self) -> (f32, f32) {
        match self.role {
            Role::Linear | Role::Kernel => {
                (0.0, (self.shape[1..].iter().product::<usize>() as f32).sqrt().recip())
            }
            Role::Embedding => (0.0, 0.02),
            Role::Gain => (1.0, 0.1),
            Role::LayerScale => (0.1, 0.01),
            Role::Bias => (0.0, 0.02),
        }
    }

    /// Writes the base's values from element `start` on into `out`.
    pub(crate) fn fill_base(&self, seed: u64, start: usize, out: &mut [f32]) {
        let (mean, std) = self.moments();
        out.fill(mean);
        Noise::new(seed, &self.name).add(start, std, out);
    }
}

/// Names parameters below a common prefix.
pub(crate) struct Params(pub(crate) Vec<Param>);

impl Params {
    pub(crate) fn add(&mut self, name: String, shape: &[usize], role: Role) {
        self.0.push(Param::new(name, shape, role));
    }

    /// `name.weight` (out × in) and `name.bias`.
    pub(crate) fn linear(&mut self, name: &str, output: usize, input: usize) {
        self.add(format!("{name}.weight"), &[output, input], Role::Linear);
        self.add(format!("{name}.bias"), &[output], Role::Bias);
    }

    /// `name.weight` and `name.bias` of a LayerNorm.
    pub(crate) fn layer_norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width], Role::Gain);
        self.add(format!("{name}.bias"), &[width], Role::Bias);
    }
}
