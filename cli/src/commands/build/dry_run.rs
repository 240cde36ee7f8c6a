//! What would be built and fetched, in nix-build's words (recorded from 2.34).

use igloo_driver::job::{JobReport, Planned};
use nix_compat::store_path::StoreDir;

/// Tells the plans of all jobs as one.
pub fn tell(dir: &StoreDir, reports: &[JobReport]) {
    let mut all = Planned::default();
    for plan in reports.iter().filter_map(|report| report.plan.as_ref()) {
        for drv in &plan.builds {
            if !all.builds.contains(drv) {
                all.builds.push(drv.clone());
            }
        }
        for fetch in &plan.fetches {
            if !all.fetches.iter().any(|known| known.0 == fetch.0) {
                all.fetches.push(fetch.clone());
            }
        }
    }
    eprint!("{}", text(dir, &all));
}

fn text(dir: &StoreDir, plan: &Planned) -> String {
    let mut lines = Vec::new();
    match plan.builds.len() {
        0 => {}
        1 => lines.push("this derivation will be built:".into()),
        count => lines.push(format!("these {count} derivations will be built:")),
    }
    lines.extend(plan.builds.iter().map(|drv| format!("  {}", dir.print(drv))));
    let unpacked: u64 = plan.fetches.iter().map(|(_, unpacked, _)| unpacked).sum();
    let download: u64 = plan.fetches.iter().filter_map(|(_, _, download)| *download).sum();
    let sizes = format!("({} download, {} unpacked)", size(download), size(unpacked));
    match plan.fetches.len() {
        0 => {}
        1 => lines.push(format!("this path will be fetched {sizes}:")),
        count => lines.push(format!("these {count} paths will be fetched {sizes}:")),
    }
    let mut fetches: Vec<_> = plan.fetches.iter().map(|(path, ..)| path).collect();
    fetches.sort_by(|a, b| (a.name().as_str(), a.digest()).cmp(&(b.name().as_str(), b.digest())));
    lines.extend(fetches.into_iter().map(|path| format!("  {}", dir.print(path))));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// As Nix 2.34 prints sizes: one decimal, in KiB or the largest unit it is at least one of.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn size(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use nix_compat::store_path::StorePath;

    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::parse(&format!("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-{name}")).unwrap()
    }

    #[test]
    fn the_words_are_nix_s() {
        let dir = StoreDir::default();
        let mut plan = Planned {
            builds: vec![path("b.drv"), path("a.drv")],
            fetches: vec![
                (path("z"), 300, Some(200)),
                (path("y"), 3_145_872, Some(3_145_900)),
            ],
        };
        let hash = "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr";
        assert_eq!(
            text(&dir, &plan),
            format!(
                "these 2 derivations will be built:\n  {hash}-b.drv\n  {hash}-a.drv\n\
                 these 2 paths will be fetched (3.0 MiB download, 3.0 MiB unpacked):\n  {hash}-y\n  {hash}-z\n"
            )
        );
        plan.builds.truncate(1);
        plan.fetches.truncate(1);
        assert_eq!(
            text(&dir, &plan),
            format!(
                "this derivation will be built:\n  {hash}-b.drv\n\
                 this path will be fetched (0.2 KiB download, 0.3 KiB unpacked):\n  {hash}-z\n"
            )
        );
        assert_eq!(text(&dir, &Planned::default()), "");
    }
}
