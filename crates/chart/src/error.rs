/// Why there is no chart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChartError {
    /// No finite value.
    #[error("the chart `{title}` has nothing to draw: no finite value was given")]
    Empty {
        /// Its title.
        title: String,
    },
    /// Names and values do not fit one another.
    #[error(
        "the chart `{title}` has {expected} names for {found} values: give one value a name, NaN where there is none"
    )]
    Shape {
        /// Its title.
        title: String,
        /// Names given.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A logarithmic axis was asked for.
    #[error("the chart `{title}` has a logarithmic axis, but no value above zero")]
    Logarithm {
        /// Its title.
        title: String,
    },
    /// The drawing library gave up.
    #[error("the chart `{title}` cannot be drawn: {reason}")]
    Drawing {
        /// Its title.
        title: String,
        /// In the library's words.
        reason: String,
    },
}
