use ndarray::{ArrayViewMut2, Axis};

/// A part of a matrix that one thread writes, with the place of its first element.
pub(super) struct Tile<'a> {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) out: ArrayViewMut2<'a, f32>,
}

/// Cuts a matrix into tiles of at most `rows` × `columns`, row by row.
pub(super) fn tiles(
    out: ArrayViewMut2<'_, f32>,
    rows: usize,
    columns: usize,
) -> impl Iterator<Item = Tile<'_>> {
    let (height, width) = out.dim();
    let mut rest = out;
    let bands = (0..height).step_by(rows).map(move |row| {
        // `split_at` takes its view by value, and gives both halves the whole lifetime.
        let nothing = ArrayViewMut2::from_shape((0, 0), &mut []).unwrap_or_else(|_| unreachable!("empty"));
        let (band, below) = std::mem::replace(&mut rest, nothing).split_at(Axis(0), rows.min(height - row));
        rest = below;
        (row, band)
    });
    bands.flat_map(move |(row, band)| {
        let mut rest = Some(band);
        (0..width).step_by(columns).filter_map(move |column| {
            let (out, beyond) = rest.take()?.split_at(Axis(1), columns.min(width - column));
            rest = Some(beyond);
            Some(Tile { row, column, out })
        })
    })
}
