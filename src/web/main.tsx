import { render } from 'preact';
import { App } from './app.tsx';
import { followRecordings } from './recordings.ts';

const root = document.getElementById('app');
if (root !== null) render(<App />, root);
void followRecordings();
