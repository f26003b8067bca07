/** Earlier launches, as the server remembers them; newest first. */

import type { Problem } from './api';
import type { Launch } from './command';

export interface Earlier {
  id: number;
  model_name: string;
  model_uid: string;
  status: 'launching' | 'running' | 'failed' | 'ended' | 'cancelled';
  data: Launch;
  created_at: string;
  problem: Problem | null;
}
