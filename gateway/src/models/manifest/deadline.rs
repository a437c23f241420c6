//! `[deadline]` of `model.toml`: how long calls of the model may take.

use std::time::Duration;

use crate::config::reader::Section;
use crate::types::Patience;

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> Patience {
    let patience = Patience { default: section.take("default"), max: section.take("max") };
    for (key, time) in [("default", patience.default), ("max", patience.max)] {
        if time == Some(Duration::ZERO) {
            section.problem(key, "must be longer than zero");
        }
    }
    if let Patience { default: Some(default), max: Some(max) } = patience
        && default > max
    {
        section.problem("default", "is longer than deadline.max");
    }
    section.finish();
    patience
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::manifest::Manifest;

    fn parse(deadline: &str) -> Result<Patience, Vec<String>> {
        let text = format!(
            "platform = 'identity'\n[[input]]\nname = 'x'\ndtype = 'FP32'\nshape = [1]\n\
             [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = [1]\n[deadline]\n{deadline}\n"
        );
        Manifest::parse(&text)
            .map(|manifest| manifest.timeouts)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_model_says_how_long_its_calls_may_take_or_leaves_it_open() {
        assert_eq!(parse(""), Ok(Patience::default()));
        let patience = parse("default = '250ms'\nmax = '2s'").unwrap();
        assert_eq!(patience.default, Some(Duration::from_millis(250)));
        assert_eq!(patience.max, Some(Duration::from_secs(2)));
    }

    #[test]
    fn times_that_can_mean_nothing_are_named() {
        for (text, expected) in [
            ("default = '0s'", "deadline.default: must be longer than zero"),
            ("max = '0s'", "deadline.max: must be longer than zero"),
            ("default = '3s'\nmax = '2s'", "deadline.default: is longer than deadline.max"),
            ("min = '2s'", "deadline.min: is not a known key, did you mean 'max'?"),
        ] {
            assert_eq!(parse(text), Err(vec![expected.to_owned()]), "{text}");
        }
    }
}
