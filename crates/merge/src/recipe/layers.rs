//! Gradients over layers.

/// How far down the stack a layer is, from 0 for the first of `layer_count` to 1 for the last; the only layer of a
/// one-layer slice counts as last. Keys outside layers have fraction 0.
///
/// Within a slice, count from the slice's first layer: every slice runs from 0 to 1.
pub fn layer_fraction(layer: usize, layer_count: usize) -> f64 {
    if layer_count <= 1 { 1.0 } else { layer as f64 / (layer_count - 1) as f64 }
}
