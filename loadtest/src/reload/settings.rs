//! The settings that the soak goes through.

use crate::configuration::{Configuration, KEY_HEADER, Route};
use crate::stage::DIGITS;

/// How many settings of `digits` there are.
pub(super) const SETTINGS: usize = 4;
/// The route whose shares are set by hand; the file never changes it.
pub(super) const DIAL: &str = "dial";

/// Nobody here calls so often.
const PLENTY: &str = "1000000/s";

/// The file of a setting: the route, another breaker, and limits that come, go and count anew by
/// other keys, and refuse nobody.
pub(super) fn file(number: usize) -> Configuration {
    let file = Configuration::of(vec![setting(number), dial()]).breaker(100 + number);
    let by_key = format!("header:{KEY_HEADER}");
    match number {
        0 => file.limit("each", "address", PLENTY),
        1 => file.limit("each", &by_key, PLENTY).limit("all", "global", PLENTY),
        2 => file.limit("all", "global", "2000000/s"),
        _ => file,
    }
}

/// A setting of the route `digits`: names, versions, salt, shares, buckets and shadows of its own.
/// Buckets are pinned, so that callers belong to the same arm whenever it comes back.
pub(super) fn setting(number: usize) -> Route {
    let route = Route::named(DIGITS).salt(["spring", "summer", "autumn", "winter"][number]);
    let (one, two, three) = ((DIGITS, "1"), (DIGITS, "2"), (DIGITS, "3"));
    match number {
        0 => route
            .arm("stable-a", one, "90%")
            .pinned(&[(0, 9000)])
            .arm("canary-a", two, "10%")
            .pinned(&[(9000, 10_000)])
            .shadow("candidate", three),
        1 => route
            .arm("stable-b", two, "50%")
            .pinned(&[(5000, 10_000)])
            .arm("canary-b", one, "50%")
            .pinned(&[(0, 5000)]),
        2 => route
            .arm("stable-c", one, "75%")
            .pinned(&[(0, 2500), (5000, 10_000)])
            .arm("canary-c", two, "25%")
            .pinned(&[(2500, 5000)])
            .shadow("candidate", two)
            .shadow("outsider", three),
        _ => route.arm("stable-d", two, "100%").pinned(&[(0, 10_000)]),
    }
}

/// The arms that answer often enough to be seen in any soak.
pub(super) fn busy() -> impl Iterator<Item = String> {
    let of_digits = (0..SETTINGS).flat_map(|number| setting(number).arms);
    of_digits.chain(dial().arms).map(|arm| arm.name)
}

/// The route whose shares are set by hand, as the file has it.
pub(super) fn dial() -> Route {
    Route::named(DIAL).arm("left", (DIGITS, "1"), "40%").arm("right", (DIGITS, "2"), "60%")
}

/// The shares of its arms at one of its positions.
pub(super) fn position(number: usize) -> (String, String) {
    let left = [40, 100, 25, 0, 60, 59][number % 6];
    (format!("{left}%"), format!("{}%", 100 - left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_settings_share_an_arm_and_no_two_positions_in_a_row_are_the_same() {
        let mut names: Vec<String> = busy().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!((0..12).all(|number| position(number) != position(number + 1)));
    }
}
