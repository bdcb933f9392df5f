use crate::{BlockDesign, DitConfig};

/// Name and shape of one tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Dotted name, as in the state dict.
    pub name: String,
    /// Extents, row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Product of the extents.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Collects names and shapes module by module.
#[derive(Default)]
pub(crate) struct Specs(pub(crate) Vec<TensorSpec>);

impl Specs {
    pub(crate) fn tensor(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(TensorSpec { name: name.into(), shape: shape.to_vec() });
    }

    /// A Linear's or convolution's weight, and its bias over the first extent.
    pub(crate) fn affine(&mut self, prefix: &str, weight: &[usize]) {
        self.tensor(format!("{prefix}.weight"), weight);
        self.tensor(format!("{prefix}.bias"), &weight[..1]);
    }
}

/// Number of sinusoidal features of the timestep.
pub(crate) const TIMESTEP_FEATURES: usize = 256;

impl DitConfig {
    /// Every tensor of the state dict in the original's layout, the frozen position table included.
    ///
    /// The names of the three block designs that the original never released are ours: `blocks.i.norm{1,2}`,
    /// `blocks.i.{norm_cross,cross_attn.{q,kv,proj}}`, `final_layer.norm_final`.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let d = self.hidden;
        let mut specs = Specs::default();
        specs.tensor("pos_embed", &[1, self.tokens(), d]);
        specs.affine("x_embedder.proj", &[d, self.in_channels, self.patch, self.patch]);
        specs.affine("t_embedder.mlp.0", &[d, TIMESTEP_FEATURES]);
        specs.affine("t_embedder.mlp.2", &[d, d]);
        specs.tensor("y_embedder.embedding_table.weight", &[self.label_rows(), d]);
        for i in 0..self.depth {
            self.block_tensors(&mut specs, &format!("blocks.{i}"));
        }
        match self.block {
            BlockDesign::InContext | BlockDesign::CrossAttention => specs.affine("final_layer.norm_final", &[d]),
            BlockDesign::AdaLn | BlockDesign::AdaLnZero => {
                specs.affine("final_layer.adaLN_modulation.1", &[2 * d, d]);
            }
        }
        specs.affine("final_layer.linear", &[self.patch * self.patch * self.out_channels(), d]);
        specs.0
    }

    fn block_tensors(&self, specs: &mut Specs, block: &str) {
        let d = self.hidden;
        specs.affine(&format!("{block}.attn.qkv"), &[3 * d, d]);
        specs.affine(&format!("{block}.attn.proj"), &[d, d]);
        specs.affine(&format!("{block}.mlp.fc1"), &[self.mlp_hidden(), d]);
        specs.affine(&format!("{block}.mlp.fc2"), &[d, self.mlp_hidden()]);
        if self.block.has_affine_norms() {
            specs.affine(&format!("{block}.norm1"), &[d]);
            specs.affine(&format!("{block}.norm2"), &[d]);
        }
        match self.block {
            BlockDesign::InContext => {}
            BlockDesign::CrossAttention => {
                specs.affine(&format!("{block}.norm_cross"), &[d]);
                specs.affine(&format!("{block}.cross_attn.q"), &[d, d]);
                specs.affine(&format!("{block}.cross_attn.kv"), &[2 * d, d]);
                specs.affine(&format!("{block}.cross_attn.proj"), &[d, d]);
            }
            BlockDesign::AdaLn | BlockDesign::AdaLnZero => {
                specs.affine(&format!("{block}.adaLN_modulation.1"), &[self.block.modulation_chunks() * d, d]);
            }
        }
    }
}
