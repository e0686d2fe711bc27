//! An agreement in words that a lawyer and a data officer can read, in Chinese and English.

use entity::{Geometry, Instant, Iri};

use super::{Agreement, Selection, Status};

/// A language that people read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// 中文.
    Zh,
}

impl Agreement {
    /// What is agreed, in a few sentences; one per line.
    #[must_use]
    pub fn describe(&self, lang: Lang) -> String {
        match lang {
            Lang::En => self.english(),
            Lang::Zh => self.chinese(),
        }
    }

    fn english(&self) -> String {
        let Self { provider, consumer, purpose, .. } = self;
        let mut lines = vec![format!("{provider} lets {consumer} read {} for the purpose \"{purpose}\".", names(&self.types, ", "))];
        lines.push(match &self.attributes {
            Selection::All => "All attributes are shared, also those that are added later.".into(),
            Selection::Only(list) => format!("Only these attributes are shared: {}.", names(list, ", ")),
        });
        lines.push(match &self.area {
            None => "The place does not matter.".into(),
            Some(area) => format!("Only what lies wholly within the agreed area is shared ({}).", bbox(area)),
        });
        lines.push(match self.position_decimals {
            None => "Positions are exact.".into(),
            Some(d) => format!("Positions are rounded to {d} decimals of a degree (a grid of about {}).", grid(d)),
        });
        lines.push(format!("In force from {} until {} (UTC, end excluded).", when(self.valid_from), when(self.valid_until)));
        lines.push(match self.status {
            Status::Offered => format!("It is offered and not yet accepted: {consumer} sees nothing under it."),
            Status::Active => "It is active.".into(),
            Status::Suspended => format!("It is suspended: {consumer} sees nothing under it for now."),
            Status::Revoked => format!("It is revoked: {consumer} sees nothing under it any more."),
        });
        lines.push(format!("Legal basis: {}.", self.legal_basis.trim_end_matches('.')));
        lines.push(format!("Only questions signed with the key {} are answered.", self.consumer_key));
        lines.join("\n")
    }

    fn chinese(&self) -> String {
        let Self { provider, consumer, purpose, .. } = self;
        let mut lines = vec![format!("{provider} 允许 {consumer} 读取 {}，用途为“{purpose}”。", names(&self.types, "、"))];
        lines.push(match &self.attributes {
            Selection::All => "共享全部属性，包括以后新增的属性。".into(),
            Selection::Only(list) => format!("仅共享以下属性：{}。", names(list, "、")),
        });
        lines.push(match &self.area {
            None => "不限地点。".into(),
            Some(area) => format!("仅共享完全位于约定区域内的对象（{}）。", bbox(area)),
        });
        lines.push(match self.position_decimals {
            None => "位置为精确值。".into(),
            Some(d) => format!("位置四舍五入到 {d} 位小数（度），网格约 {}。", grid(d)),
        });
        lines.push(format!("有效期自 {} 起至 {} 止（UTC，不含终点）。", when(self.valid_from), when(self.valid_until)));
        lines.push(match self.status {
            Status::Offered => format!("状态：已提出，尚未接受；{consumer} 不能据此看到任何数据。"),
            Status::Active => "状态：生效中。".into(),
            Status::Suspended => format!("状态：已中止；{consumer} 暂时不能据此看到任何数据。"),
            Status::Revoked => format!("状态：已撤销；{consumer} 不能再据此看到任何数据。"),
        });
        lines.push(format!("法律依据：{}。", self.legal_basis.trim_end_matches(['.', '。'])));
        lines.push(format!("只回答由密钥 {} 签名的询问。", self.consumer_key));
        lines.join("\n")
    }
}

fn names(iris: &[Iri], separator: &str) -> String {
    iris.iter().map(Iri::local_name).collect::<Vec<_>>().join(separator)
}

/// Midnight is written as the day alone.
fn when(at: Instant) -> String {
    let text = at.to_string();
    text.strip_suffix("T00:00:00Z").map(str::to_owned).unwrap_or(text)
}

fn bbox(area: &Geometry) -> String {
    let [west, south, east, north] = area.bbox();
    format!("{west:.3}..{east:.3}°E, {south:.3}..{north:.3}°N")
}

/// The spacing of positions with so many decimals: one degree of latitude is about 111 km.
fn grid(decimals: u8) -> String {
    let metres = 111_000.0 / 10f64.powi(i32::from(decimals));
    if metres >= 1_000.0 {
        format!("{:.*} km", usize::from(metres < 10_000.0), metres / 1_000.0)
    } else if metres >= 1.0 {
        format!("{:.*} m", usize::from(metres < 10.0), metres)
    } else if metres >= 0.01 {
        format!("{:.0} cm", metres * 100.0)
    } else {
        format!("{:.0} mm", metres * 1_000.0)
    }
}
