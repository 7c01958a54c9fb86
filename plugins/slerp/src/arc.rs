//! Points of the great circle through two directions.

/// What a and b are multiplied by for the point at `t` of the way from a to b: (sin((1−t)θ), sin(tθ)) / sin θ, and
/// (1−t, t) where they count as `parallel` and sin θ is too small to divide by. NaN for a cosine that is NaN.
pub(crate) fn factors(cosine: f64, t: f64, parallel: bool) -> (f64, f64) {
    if cosine.is_nan() {
        return (f64::NAN, f64::NAN);
    }
    if parallel {
        return (1.0 - t, t);
    }
    let angle = cosine.acos();
    (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
}
