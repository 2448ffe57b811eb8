//! Numbers over time, drawn as SVG. Colours and fonts are the style sheet's, which overrules what stands in a drawing, so that
//! it fits a dark page, too.

use chrono::{DateTime, TimeDelta, Utc};
use plotters::prelude::*;

use super::show::grouped;
use super::view::Svg;
use crate::domain::Timestamp;

/// Width and height of a chart, in pixels of its own.
const CHART: (u32, u32) = (960, 200);
/// The same of one in a table.
const SPARK: (u32, u32) = (120, 28);

/// Instants with the number that holds from then on.
pub(super) type Course = Vec<(Timestamp, i64)>;

/// A number that changes at instants, up to `until`.
pub(super) fn history(course: &Course, until: Timestamp, says: &str) -> Option<Svg> {
    let points = steps(since_it_was(course), until);
    let (first, last) = (points.first()?.0, points.last()?.0);
    // A course of one instant has no width.
    let last = last.max(first + TimeDelta::seconds(1));
    let top = (highest(&points) * 1.1).max(1.0);
    let mut svg = String::new();
    draw_history(&mut svg, &points, (first, last), top).ok()?;
    Some(labelled(&svg, "chart", says))
}

fn draw_history(
    svg: &mut String,
    points: &[(DateTime<Utc>, f64)],
    (first, last): (DateTime<Utc>, DateTime<Utc>),
    top: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, CHART).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(8)
        .margin_right(16)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(first..last, 0.0..top)?;
    let pattern = if last - first > TimeDelta::days(2) { "%b %d" } else { "%H:%M" };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(6)
        .y_labels(if top < 5.0 { 2 } else { 4 })
        .x_label_formatter(&|at| at.format(pattern).to_string())
        .y_label_formatter(&|size| grouped(size.round() as i64))
        .label_style(("sans-serif", 14))
        .draw()?;
    chart
        .draw_series(AreaSeries::new(points.iter().copied(), 0.0, BLUE).border_style(BLUE.stroke_width(2)))?;
    root.present()?;
    drop(chart);
    Ok(())
}

/// A course without axes, for a row of a table.
pub(super) fn spark(values: &[f64], says: &str) -> Option<Svg> {
    if values.len() < 2 {
        return None;
    }
    let top = values.iter().copied().fold(0.0, f64::max).max(1.0) * 1.05;
    let mut svg = String::new();
    draw_spark(&mut svg, values, top).ok()?;
    Some(labelled(&svg, "spark", says))
}

fn draw_spark(svg: &mut String, values: &[f64], top: f64) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SPARK).into_drawing_area();
    let last = (values.len() - 1) as f64;
    let mut chart = ChartBuilder::on(&root).margin(1).build_cartesian_2d(0.0..last, 0.0..top)?;
    let points = values.iter().enumerate().map(|(at, value)| (at as f64, *value));
    chart.draw_series(AreaSeries::new(points, 0.0, BLUE).border_style(BLUE.stroke_width(2)))?;
    root.present()?;
    drop(chart);
    Ok(())
}

/// Without the time before there was anything, but for its last instant.
fn since_it_was(course: &[(Timestamp, i64)]) -> &[(Timestamp, i64)] {
    let first = course.iter().position(|(_, size)| *size != 0).unwrap_or_default();
    course.get(first.saturating_sub(1)..).unwrap_or_default()
}

/// A number holds until it changes: each change is a step.
fn steps(course: &[(Timestamp, i64)], until: Timestamp) -> Vec<(DateTime<Utc>, f64)> {
    let mut points: Vec<(DateTime<Utc>, f64)> = Vec::with_capacity(course.len() * 2 + 1);
    for (at, size) in course {
        if let Some((_, before)) = points.last().copied() {
            points.push((at.to_utc(), before));
        }
        points.push((at.to_utc(), *size as f64));
    }
    if let Some((at, size)) = points.last().copied()
        && until.to_utc() > at
    {
        points.push((until.to_utc(), size));
    }
    points
}

fn highest(points: &[(DateTime<Utc>, f64)]) -> f64 {
    points.iter().map(|(_, size)| *size).fold(0.0, f64::max)
}

/// The drawing with a name for those who do not see it. What it says is of ours; quotes would end the attribute.
fn labelled(svg: &str, class: &str, says: &str) -> Svg {
    let says: String = says.chars().filter(|c| !matches!(c, '"' | '<' | '>' | '&')).collect();
    Svg(svg.replacen("<svg ", &format!("<svg class=\"{class}\" role=\"img\" aria-label=\"{says}\" "), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_have_nothing_a_page_may_not_have() {
        let at = Timestamp::from_millis;
        let course = vec![(at(0), 3), (at(60_000), 7)];
        let drawn = history(&course, at(120_000), "a\" onload=\"x").unwrap().0;
        assert!(drawn.contains("polygon") && drawn.contains("polyline"), "{drawn}");
        assert!(drawn.contains("aria-label=\"a onload=x\""), "{drawn}");
        let spark = spark(&[1.0, 2.0], "two").unwrap().0;
        for svg in [drawn, spark] {
            assert!(!svg.contains("style=") && !svg.contains("<script"), "{svg}");
        }
    }

    #[test]
    fn a_size_holds_until_it_changes() {
        let at = Timestamp::from_millis;
        let course = vec![(at(10), 3), (at(60), 7)];
        let sizes: Vec<f64> = steps(&course, at(100)).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [3.0, 3.0, 7.0, 7.0]);
        assert!(history(&Vec::new(), at(100), "none").is_none());
    }
}
