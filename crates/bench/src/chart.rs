//! Pictures of lines over a logarithmic axis, as SVG.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::number::number;

const SIZE: (u32, u32) = (640, 360);
/// Above the highest point.
const HEADROOM: f64 = 1.1;

pub struct Chart {
    pub title: &'static str,
    /// What the points are told apart by, and from where to where.
    pub along: &'static str,
    pub range: Range<f64>,
    /// Where no line is expected.
    pub legend: SeriesLabelPosition,
}

pub struct Line {
    pub name: &'static str,
    pub color: RGBColor,
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    pub fn draw(&self, lines: &[Line]) -> Result<String> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // The backend's errors borrow the text.
        self.lines(&area, lines).map_err(|error| anyhow!("drawing {}: {error}", self.title))?;
        drop(area);
        Ok(svg)
    }

    fn lines<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        lines: &[Line],
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let top = top(lines);
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(self.range.clone().log_scale(), 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(self.along)
            .x_label_formatter(&|value| number(Some(*value), 0))
            .y_label_formatter(&|value| number(Some(*value), decimals(top)))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for Line { name, color, points } in lines {
            let color = *color;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        let mut names = chart.configure_series_labels();
        names.position(self.legend.clone()).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present()
    }
}

fn top(lines: &[Line]) -> f64 {
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    values.fold(f64::MIN_POSITIVE, f64::max) * HEADROOM
}

/// As many as tell the labels of an axis apart, of which there are about ten.
fn decimals(top: f64) -> usize {
    match top {
        10.0.. => 0,
        1.0.. => 1,
        0.1.. => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(top: f64) -> Vec<String> {
        let chart =
            Chart { title: "t", along: "x", range: 1.0..1000.0, legend: SeriesLabelPosition::UpperLeft };
        let line = Line { name: "n", color: RED, points: vec![(1.0, 0.0), (1000.0, top)] };
        let svg = chart.draw(&[line]).expect("draws");
        svg.lines().filter(|line| !line.starts_with('<')).map(str::to_owned).collect()
    }

    #[test]
    fn labels_are_numbers_for_people() {
        let large = labels(35_000.0);
        assert!(large.iter().any(|label| label == "35,000"), "{large:?}");
        assert!(large.iter().any(|label| label == "1,000"), "{large:?}");
        assert!(labels(1.4).iter().any(|label| label == "0.2"), "{:?}", labels(1.4));
    }

    #[test]
    fn no_two_labels_of_an_axis_are_alike() {
        for top in [0.03, 0.4, 1.2, 7.0, 12.0, 99.0, 4321.0] {
            let mut labels = labels(top);
            let whole = labels.len();
            labels.sort();
            labels.dedup();
            // The axis along may show the same number as the axis up.
            assert!(whole - labels.len() <= 3, "{top}: {labels:?}");
        }
    }
}
