//! The picture of a soak: which share of jobs waited longer than that.

use plotters::prelude::*;

use crate::measurement::Measurement;

/// Size of the picture, in pixels.
const SIZE: (u32, u32) = (900, 560);

/// Smallest share that is drawn: one in a million.
const SHARE_MIN: f64 = 1e-6;

/// A green that shows on white.
const AGE: RGBColor = RGBColor(0, 130, 60);

/// Smallest time that is drawn, in milliseconds.
const MS_MIN: f64 = 0.01;

/// An SVG with the tails of waits and responses, on logarithmic axes.
///
/// # Errors
/// What the drawing library has to say.
pub fn svg(title: &str, measurement: &Measurement) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, title, measurement).map_err(|error| error.to_string())?;
    Ok(text)
}

type Drawing = Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, title: &str, measurement: &Measurement) -> Drawing {
    let lines = [
        ("wait", measurement.wait_tail(), BLUE),
        ("response", measurement.response_tail(), RED),
        ("age of what was known", measurement.age_tail(), AGE),
    ];
    let longest = lines.iter().filter_map(|(_, tail, _)| tail.last()).map(|(ms, _)| *ms);
    let longest = longest.fold(1.0, f64::max) * 1.5;
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((MS_MIN..longest).log_scale(), (SHARE_MIN..1.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("longer than, in milliseconds")
        .y_desc("share of jobs")
        .y_label_formatter(&|share| format!("{share:.0e}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (name, tail, colour) in lines {
        let points = tail.into_iter().filter(|(ms, share)| *ms >= MS_MIN && *share >= SHARE_MIN);
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use svcmap_proto::time::Timestamp;

    use super::*;

    #[test]
    fn a_picture_has_its_title_and_its_lines() {
        let second = Duration::from_secs(1);
        let mut measurement = Measurement::new(Timestamp::default(), second, 1, second);
        (1..1000).for_each(|ms| measurement.start(Duration::from_millis(ms)));
        let svg = svg("a soak & more", &measurement).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("a soak &amp; more") && svg.contains("share of jobs"), "{svg}");
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
    }
}
