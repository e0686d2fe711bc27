//! The parameters of an import, in the URL's query.

use table::{Layout, UtcOffset};

use crate::problem::Problem;

/// What the URL says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Parameters {
    /// Name of the job.
    pub(super) job: Option<String>,
    /// Number of the body's first row in the job's source, from 0.
    pub(super) from_row: u64,
    /// Nothing follows: the job is done when this is in.
    pub(super) complete: bool,
    /// Which column is what.
    pub(super) layout: Layout,
}

/// The names, for messages and for OpenAPI.
pub(crate) const NAMES: [&str; 11] = ["job", "fromRow", "complete", "id", "time", "idPrefix", "map", "unit", "text", "null", "utcOffset"];

impl Parameters {
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        let mut found = Self { complete: true, ..Self::default() };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let fault = |expected: &str| {
                Problem::invalid_request(format!(
                    "parameter `{name}`: expected {expected}, found `{}`",
                    value.chars().take(80).collect::<String>()
                ))
            };
            let pair = |expected: &str| {
                let (a, b) = value.split_once('=').ok_or_else(|| fault(expected))?;
                Ok::<_, Problem>((a.to_owned(), b.to_owned()))
            };
            let layout = &mut found.layout;
            match name.as_ref() {
                "job" => found.job = Some(value.into_owned()),
                "fromRow" => found.from_row = value.parse().map_err(|_| fault("the number of a row, from 0"))?,
                "complete" => found.complete = value.parse().map_err(|_| fault("`true` or `false`"))?,
                "id" => layout.id = value.into_owned(),
                "time" => layout.time = value.into_owned(),
                "idPrefix" => layout.id_prefix = value.into_owned(),
                "map" => {
                    let (column, attribute) = pair("`column=attribute`, or `column=` to leave it out")?;
                    layout.rename.insert(column, attribute);
                }
                "unit" => {
                    let (attribute, code) = pair("`attribute=code`")?;
                    layout.units.insert(attribute, code);
                }
                "text" => drop(layout.text.insert(value.into_owned())),
                "null" => drop(layout.nulls.insert(value.into_owned())),
                "utcOffset" => layout.utc_offset = Some(value.parse::<UtcOffset>().map_err(|_| fault("an offset such as `+08:00`"))?),
                other => {
                    let other: String = other.chars().take(40).collect();
                    return Err(Problem::invalid_request(format!("unknown parameter `{other}`; there are {}", NAMES.join(", "))));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_wrong_ones_named() {
        let p = Parameters::of(
            "job=j1&fromRow=7&map=PM2.5%3Dpm25&map=junk%3D&unit=pm25%3DGQ&text=code&null=NA&utcOffset=%2B08:00&complete=false",
        )
        .unwrap();
        assert_eq!((p.job.as_deref(), p.from_row, p.complete), (Some("j1"), 7, false));
        assert_eq!(p.layout.rename["PM2.5"], "pm25");
        assert_eq!(p.layout.rename["junk"], "");
        assert_eq!(p.layout.units["pm25"], "GQ");
        assert_eq!(p.layout.utc_offset, Some(UtcOffset(28_800)));
        assert!(p.layout.text.contains("code") && p.layout.nulls.contains("NA"));
        for (query, want) in [
            ("fromRow=x", "parameter `fromRow`"),
            ("unit=GQ", "`attribute=code`"),
            ("rows=1", "unknown parameter `rows`"),
            ("utcOffset=8", "such as `+08:00`"),
        ] {
            let problem = Parameters::of(query).unwrap_err();
            assert!(problem.detail.contains(want), "{}", problem.detail);
        }
    }
}
