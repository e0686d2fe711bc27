/** Asks for the access token when the node wants one. */
import { Alert, Form, Input, Modal, Typography } from 'antd';
import { useText } from '../i18n/useText';

interface Props {
  open: boolean;
  /** True when a token was sent and refused. */
  refused: boolean;
  onToken: (token: string) => void;
  onCancel: () => void;
}

export default function TokenDialog({ open, refused, onToken, onCancel }: Props) {
  const { t } = useText();
  const [form] = Form.useForm<{ token: string }>();
  return (
    <Modal open={open} title={t('login.title')} okText={t('action.signIn')} onOk={form.submit} onCancel={onCancel} destroyOnHidden>
      <Typography.Paragraph>{t('login.text')}</Typography.Paragraph>
      {refused && <Alert type="error" showIcon title={t('login.wrong')} style={{ marginBottom: 12 }} />}
      <Form form={form} layout="vertical" onFinish={({ token }) => onToken(token.trim())} clearOnDestroy>
        <Form.Item name="token" label={t('login.token')} extra={t('login.kept')} rules={[{ required: true, whitespace: true, message: t('login.title') }]}>
          <Input.Password autoFocus autoComplete="off" data-testid="token" />
        </Form.Item>
      </Form>
    </Modal>
  );
}
