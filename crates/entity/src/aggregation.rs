//! What can be computed of values over periods (ETSI GS CIM 009 V1.9.1, clause 4.5.19).

/// What is computed of the values of a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AggregationMethod {
    /// How many values there are.
    TotalCount,
    /// How many different ones.
    DistinctCount,
    /// The sum of numbers, truth values (as 1 and 0) and sizes of arrays.
    Sum,
    /// Their mean.
    Avg,
    /// The smallest of them, or the first text in the order of characters.
    Min,
    /// The largest of them, or the last text.
    Max,
    /// The standard deviation of numbers and truth values, as a whole population.
    StdDev,
    /// The sum of the squares of numbers and truth values.
    SumSq,
}

impl AggregationMethod {
    /// Every method.
    pub const ALL: [Self; 8] =
        [Self::TotalCount, Self::DistinctCount, Self::Sum, Self::Avg, Self::Min, Self::Max, Self::StdDev, Self::SumSq];

    /// The name that requests and answers give it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TotalCount => "totalCount",
            Self::DistinctCount => "distinctCount",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::StdDev => "stddev",
            Self::SumSq => "sumsq",
        }
    }
}

/// How long a period is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AggregationPeriod {
    /// As long as the interval of the question.
    Whole,
    /// So many calendar months (in UTC), at least 1.
    Months(u32),
    /// So many microseconds, at least 1.
    Micros(i64),
}
